package verdict

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Flaw is a known vulnerability of an installed package.
type Flaw struct {
	ID        string `json:"id"`
	Severity  string `json:"severity"` // one of FlawSeverities
	Package   string `json:"package"`
	Installed string `json:"installed"`
	Fixed     string `json:"fixed,omitempty"` // version that has it mended; empty: there is none
}

// FlawSeverities are the severities of vulnerabilities, the worst first.
var FlawSeverities = []string{"critical", "high", "medium", "low", "unknown"}

// Flaws are what a feed of vulnerabilities says, bound by whoever calls this to what was held against it.
type Flaws struct {
	Made  time.Time // of the feed, by its publisher
	At    time.Time // when something was held against it
	Found []Flaw
}

// Counts returns how many there are of each severity.
func Counts(found []Flaw) map[string]int {
	n := map[string]int{}
	for i := range found {
		n[found[i].Severity]++
	}
	return n
}

// FlawBudget is how many vulnerabilities of a severity there may be. A severity that it does not have: none. Negative: any number.
type FlawBudget map[string]int

// FlawRules are which vulnerabilities there may be. The zero value takes none, by a feed of any age.
type FlawRules struct {
	Max FlawBudget
	// IgnoreUnfixed: those that no newer version mends do not count.
	IgnoreUnfixed bool
	// MaxAge is how long ago something was held against the feed, FeedAge how old the feed was then; 0: any.
	MaxAge, FeedAge time.Duration
	Waivers         []Waiver
}

// maxNamed is how many vulnerabilities a problem names.
const maxNamed = 5

// JudgeFlaws holds vulnerabilities against rules at time now: a problem for each severity of which there are too many.
func JudgeFlaws(r *FlawRules, f *Flaws, now time.Time) *Judgement {
	j := &Judgement{}
	j.feed(r, f, now)
	waivers, over := flawWaivers(r.Waivers), map[string][]*Flaw{}
	for i := range f.Found {
		x := &f.Found[i]
		if x.Fixed == "" && r.IgnoreUnfixed || j.waiveFlaw(waivers[x.ID], x, now) {
			continue
		}
		over[x.Severity] = append(over[x.Severity], x)
	}
	for _, severity := range FlawSeverities {
		found := over[severity]
		delete(over, severity)
		p := tooMany(severity, found, r.Max[severity])
		if most := r.Max[severity]; most >= 0 && len(found) > most {
			j.add(p)
		} else if len(found) > 0 {
			j.Within = append(j.Within, p)
		}
	}
	for severity, found := range over { // it counts against no budget, and there is at least one
		j.add(tooMany(severity, found, 0))
	}
	return j
}

// feed judges the feed as a whole.
func (j *Judgement) feed(r *FlawRules, f *Flaws, now time.Time) {
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch age := now.Sub(f.At); {
	case age < -FutureLimit:
		j.add(Problem{Message: "the look for vulnerabilities is of the future", Expected: "at most " + stamp(now), Observed: stamp(f.At), Cause: "a clock is wrong", Remedy: "set it, and scan again"})
	case r.MaxAge > 0 && age > r.MaxAge:
		j.add(Problem{Message: "the look for vulnerabilities is too old", Expected: "at most " + r.MaxAge.String(), Observed: stamp(f.At), Cause: "nobody scanned again", Remedy: "scan again"})
	}
	if age := f.At.Sub(f.Made); r.FeedAge > 0 && age > r.FeedAge {
		j.add(Problem{Message: "the feed of vulnerabilities was too old", Expected: "at most " + r.FeedAge.String() + " before the scan", Observed: "made " + stamp(f.Made),
			Cause: "the folder of feeds is not kept up to date", Remedy: "fetch a new feed, and scan again"})
	}
}

func flawWaivers(all []Waiver) map[string][]Waiver {
	by := map[string][]Waiver{}
	for _, w := range all {
		if w.Flaw != "" {
			by[w.Flaw] = append(by[w.Flaw], w)
		}
	}
	return by
}

// waiveFlaw files a vulnerability under a waiver that is valid.
func (j *Judgement) waiveFlaw(waivers []Waiver, x *Flaw, now time.Time) bool {
	for _, w := range waivers {
		if !now.Before(w.Until) {
			j.Unused = append(j.Unused, w)
			continue
		}
		j.Waived = append(j.Waived, Problem{Flaws: true, Message: fmt.Sprintf("vulnerability %s of severity %s: %s", x.ID, x.Severity, x.where()), Expected: w.String(), Observed: "it is there"})
		return true
	}
	return false
}

func (x *Flaw) where() string {
	out := x.Package + " " + x.Installed
	if x.Fixed == "" {
		return out + ", no version mends it"
	}
	return out + ", mended in " + x.Fixed
}

func tooMany(severity string, found []*Flaw, most int) Problem {
	var names []string
	for _, x := range found[:min(len(found), maxNamed)] {
		names = append(names, x.ID+" ("+x.where()+")")
	}
	if more := len(found) - maxNamed; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	word := "vulnerabilities"
	if len(found) == 1 {
		word = "vulnerability"
	}
	return Problem{
		Flaws: true, Message: fmt.Sprintf("%d %s of severity %s", len(found), word, severity), Expected: fmt.Sprintf("at most %d", most), Observed: strings.Join(names, ", "),
		Cause: "packages of the image have vulnerabilities that are known", Remedy: "build the image anew with the versions that mend them",
	}
}

// Next returns when JudgeFlaws may say something else of the same vulnerabilities, or Judge of the same scan: the first end of a waiver, or of the age that
// a scan at a time may have, after now. Zero: never.
func Next(waivers []Waiver, at time.Time, maxAge time.Duration, now time.Time) time.Time {
	ends := []time.Time{}
	if maxAge > 0 {
		ends = append(ends, at.Add(maxAge+1))
	}
	for _, w := range waivers {
		ends = append(ends, w.Until)
	}
	ends = slices.DeleteFunc(ends, func(t time.Time) bool { return !t.After(now) })
	if len(ends) == 0 {
		return time.Time{}
	}
	return slices.MinFunc(ends, time.Time.Compare)
}
