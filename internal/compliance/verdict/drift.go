package verdict

import "touchstone.dev/touchstone/internal/compliance/xccdf"

// Change is one rule whose outcome is another one than in the scan before.
type Change struct {
	Rule
	Was xccdf.Outcome `json:"was,omitempty"` // empty: it was not judged before
	Now xccdf.Outcome `json:"now,omitempty"` // empty: it is not judged any more
}

// Worse reports whether the rule fell.
func (c *Change) Worse() bool { return c.Now == "" || badness(c.Now) > badness(c.Was) && c.Was != "" }

// Drift compares two scans rule by rule: what changed, in the order of ids, with the remediation of what fails now.
func Drift(before, after *Scan) []Change {
	var out []Change
	i, k := 0, 0
	for i < len(before.Rules) || k < len(after.Rules) {
		switch {
		case k == len(after.Rules) || i < len(before.Rules) && before.Rules[i].ID < after.Rules[k].ID:
			out = append(out, Change{Rule: before.Rules[i], Was: before.Rules[i].Outcome})
			i++
		case i == len(before.Rules) || after.Rules[k].ID < before.Rules[i].ID:
			out = append(out, Change{Rule: after.Rules[k], Now: after.Rules[k].Outcome})
			k++
		default:
			if before.Rules[i].Outcome != after.Rules[k].Outcome {
				out = append(out, Change{Rule: after.Rules[k], Was: before.Rules[i].Outcome, Now: after.Rules[k].Outcome})
			}
			i++
			k++
		}
	}
	return out
}
