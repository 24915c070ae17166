package imagescan

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/compliance/verdict"
	"touchstone.dev/touchstone/internal/protocol"
)

// Budget is how many vulnerabilities an image may have, by severity; -1: any number. A severity that is not there: none.
type Budget map[string]int

// Severities of vulnerabilities, the worst first.
var Severities = []string{"critical", "high", "medium", "low", "unknown"}

// ParseBudget reads "critical=0,low=-1".
func ParseBudget(s string) (Budget, error) {
	b := Budget{}
	for _, part := range strings.Split(s, ",") {
		if part == "" {
			continue
		}
		name, number, _ := strings.Cut(part, "=")
		n, err := strconv.Atoi(number)
		if err != nil || n < -1 || !slices.Contains(Severities, name) {
			return nil, fmt.Errorf("%q: want SEVERITY=NUMBER, -1 for any number, of %s", part, strings.Join(Severities, ", "))
		}
		b[name] = n
	}
	return b, nil
}

// Judge returns why an image does not pass, in words; none: it passes. Rules and a scan go together, as do a budget and a feed.
func Judge(scan *verdict.Scan, rules *verdict.Rules, feed *protocol.ImageFeed, budget Budget, now time.Time) []string {
	var out []string
	if scan == nil && feed == nil {
		return []string{"nothing of the image was scanned"}
	}
	if scan != nil {
		for _, p := range verdict.Judge(rules, scan, now).Problems {
			out = append(out, fmt.Sprintf("%s: expected %s, observed %s", p.Message, p.Expected, p.Observed))
		}
	}
	if feed == nil {
		return out
	}
	counts := feed.Counts()
	for severity := range maps.Keys(counts) {
		if !slices.Contains(Severities, severity) {
			out = append(out, fmt.Sprintf("a vulnerability has severity %q", severity))
		}
	}
	for _, s := range Severities {
		if most := budget[s]; most >= 0 && counts[s] > most {
			out = append(out, fmt.Sprintf("%d vulnerabilities of severity %s: at most %d are allowed", counts[s], s, most))
		}
	}
	return out
}
