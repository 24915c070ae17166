package rules

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// State is how one intended rule stands.
type State string

// States of rules.
const (
	StateLoaded  State = "loaded"
	StateMissing State = "missing"   // it should be loaded
	StateNoPath  State = "no-path"   // what it watches is not on this machine: nothing to load
	StateFailed  State = "failed"    // the kernel or auditctl refused it
	StateExtra   State = "extra"     // it has a key of ours, and is none of ours
	StateWrong   State = "misplaced" // an exclusion stands behind rules that it should silence
)

// Finding is one rule and how it stands.
type Finding struct {
	Rule  Rule
	State State
	Why   string // for people
}

// Report compares what is loaded with what is meant.
type Report struct {
	Findings []Finding
	Others   int // loaded rules of others
}

// Drift returns the findings that are not as meant.
func (r *Report) Drift() []Finding {
	var drift []Finding
	for _, f := range r.Findings {
		if f.State != StateLoaded && f.State != StateNoPath {
			drift = append(drift, f)
		}
	}
	return drift
}

// Count returns how many rules stand so.
func (r *Report) Count(s State) int {
	n := 0
	for _, f := range r.Findings {
		if f.State == s {
			n++
		}
	}
	return n
}

// Compare returns how the intended rules stand among the loaded ones, and rules with our keys that nobody intended.
func Compare(intended, loaded []Rule) *Report {
	have := map[string]int{} // by meaning: place
	for i, l := range loaded {
		if _, twice := have[l.Meaning()]; !twice {
			have[l.Meaning()] = i
		}
	}
	firstOther := len(loaded)
	for i, l := range loaded {
		if !l.first() {
			firstOther = i
			break
		}
	}
	report := &Report{}
	meant := map[string]bool{}
	for _, r := range intended {
		m := r.Meaning()
		meant[m] = true
		f := Finding{Rule: r, State: StateLoaded}
		at, ok := have[m]
		switch {
		case !ok && r.Path != "" && !exists(r):
			f.State, f.Why = StateNoPath, r.Path+" is not there"
		case !ok:
			f.State, f.Why = StateMissing, "not loaded"
		case r.first() && at > firstOther && !strings.Contains(m, ",exclude"):
			f.State, f.Why = StateWrong, "an exclusion must stand before the rules that it silences"
		}
		report.Findings = append(report.Findings, f)
	}
	for _, l := range loaded {
		switch {
		case meant[l.Meaning()]:
		case strings.HasPrefix(l.Key, KeyPrefix):
			report.Findings = append(report.Findings, Finding{Rule: l, State: StateExtra, Why: "nobody intended it"})
		default:
			report.Others++
		}
	}
	return report
}

// exists reports whether what a rule watches is there. A watch needs the folder only: the file may come.
func exists(r Rule) bool {
	if _, err := os.Lstat(r.Path); !errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if strings.Contains(r.String(), "dir=") || strings.HasPrefix(r.Path, "/proc/") || strings.HasPrefix(r.Path, "/sys/") {
		return false // there no file can come
	}
	_, err := os.Lstat(filepath.Dir(r.Path))
	return !errors.Is(err, fs.ErrNotExist)
}

// Check compares the kernel's rules with the shipped ones.
func Check(ctx context.Context, ctl Ctl, agent string) (*Report, error) {
	intended, err := Shipped(agent)
	if err != nil {
		return nil, err
	}
	loaded, err := Loaded(ctx, ctl)
	if err != nil {
		return nil, err
	}
	return Compare(intended, loaded), nil
}

// Summary returns the report in a sentence.
func (r *Report) Summary() string {
	s := fmt.Sprintf("%d of %d rules are loaded", r.Count(StateLoaded), len(r.Findings)-r.Count(StateExtra))
	if n := r.Count(StateNoPath); n > 0 {
		s += fmt.Sprintf(", %d watch what is not on this machine", n)
	}
	if n := len(r.Drift()); n > 0 {
		s += fmt.Sprintf(", %d are not as meant", n)
	}
	if r.Others > 0 {
		s += fmt.Sprintf("; %d rules of others", r.Others)
	}
	return s
}
