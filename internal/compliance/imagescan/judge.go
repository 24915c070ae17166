package imagescan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/compliance/verdict"
	"touchstone.dev/touchstone/internal/protocol"
)

// ParseBudget reads how many vulnerabilities there may be, as "critical=0,low=-1".
func ParseBudget(s string) (verdict.FlawBudget, error) {
	b := verdict.FlawBudget{}
	for _, part := range strings.Split(s, ",") {
		if part == "" {
			continue
		}
		name, number, _ := strings.Cut(part, "=")
		n, err := strconv.Atoi(number)
		if err != nil || n < -1 || !slices.Contains(verdict.FlawSeverities, name) {
			return nil, fmt.Errorf("%q: want SEVERITY=NUMBER, -1 for any number, of %s", part, strings.Join(verdict.FlawSeverities, ", "))
		}
		b[name] = n
	}
	return b, nil
}

// Judge returns why an image does not pass, in words; none: it passes. Rules and a scan go together, as do rules on flaws and a feed.
func Judge(scan *verdict.Scan, rules *verdict.Rules, feed *protocol.ImageFeed, flaws *verdict.FlawRules, now time.Time) []string {
	if scan == nil && feed == nil {
		return []string{"nothing of the image was scanned"}
	}
	var found []verdict.Problem
	if scan != nil {
		found = verdict.Judge(rules, scan, now).Problems
	}
	if feed != nil {
		found = append(found, verdict.JudgeFlaws(flaws, &verdict.Flaws{Made: feed.Made, At: now, Found: feed.Flaws}, now).Problems...)
	}
	var out []string
	for _, p := range found {
		out = append(out, fmt.Sprintf("%s: expected %s, observed %s", p.Message, p.Expected, p.Observed))
	}
	return out
}
