package policy

import (
	"encoding/json"
	"fmt"
	"time"
)

// Duration is a time.Duration that is written as text ("90s").
type Duration struct{ time.Duration }

// UnmarshalJSON reads a duration as time.ParseDuration does.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("want a duration such as \"60s\": %w", err)
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("want a duration such as \"60s\": %w", err)
	}
	d.Duration = v
	return nil
}

// MarshalJSON writes the duration as text.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// Time is a date ("2026-12-31") or a time (RFC 3339).
type Time struct{ time.Time }

// UnmarshalJSON reads a date or a time; a date ends at its midnight in UTC.
func (t *Time) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("want a date such as \"2026-12-31\": %w", err)
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if v, err := time.Parse(layout, s); err == nil {
			if layout == time.DateOnly {
				v = v.AddDate(0, 0, 1)
			}
			t.Time = v.UTC()
			return nil
		}
	}
	return fmt.Errorf("want a date such as \"2026-12-31\" or an RFC 3339 time, got %q", s)
}

// MarshalJSON writes the time as RFC 3339.
func (t Time) MarshalJSON() ([]byte, error) { return json.Marshal(t.Format(time.RFC3339)) }

// Match reports whether s matches pattern, in which * stands for any run of characters, / included. Everything else is literal.
func Match(pattern, s string) bool {
	// Iterative matching with one point to return to: linear in practice, quadratic at worst, no recursion on hostile text.
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// MatchAny reports whether s matches one of the patterns.
func MatchAny(patterns []string, s string) bool {
	for _, p := range patterns {
		if Match(p, s) {
			return true
		}
	}
	return false
}
