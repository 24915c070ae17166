package policy

import "touchstone.dev/touchstone/internal/compliance/tailoring"

// Tailoring changes the profile of compliance scans. AIAS makes an XCCDF tailoring of it and gives it to workers; a scan by another, or by none, does not count.
type Tailoring struct {
	// Select are rules or groups that the profile leaves out.
	Select []TailoredRule `json:"select,omitempty"`
	// Deselect are rules or groups that do not count; each needs a reason.
	Deselect []TailoredRule `json:"deselect,omitempty"`
	// Values set what rules compare with.
	Values []TailoredValue `json:"values,omitempty"`
}

// TailoredRule is a rule or group by its id.
type TailoredRule struct {
	Rule   string `json:"rule"`
	Reason string `json:"reason,omitempty"`
}

// TailoredValue is a value by its id.
type TailoredValue struct {
	Value string `json:"value"`
	Set   string `json:"set"`
}

// Tailored is the tailoring that scans must use; nil: none is generated.
func (c *Compliance) Tailored() *tailoring.Tailoring {
	if c.Tailoring == nil {
		return nil
	}
	t := &tailoring.Tailoring{Profile: c.Profile}
	for _, r := range c.Tailoring.Select {
		t.Select = append(t.Select, tailoring.Change{ID: r.Rule, Reason: r.Reason})
	}
	for _, r := range c.Tailoring.Deselect {
		t.Deselect = append(t.Deselect, tailoring.Change{ID: r.Rule, Reason: r.Reason})
	}
	for _, v := range c.Tailoring.Values {
		t.Set = append(t.Set, tailoring.Change{ID: v.Value, Text: v.Set})
	}
	return t
}

func (c *Compliance) validateTailoring(e *errs) {
	t := c.Tailored()
	if t == nil {
		return
	}
	if err := t.Check(); err != nil {
		e.add("runtime.compliance.tailoring: %w", err)
	}
	if len(c.Tailorings) > 0 {
		e.add("runtime.compliance: tailoring and tailorings exclude each other: workers use the generated one")
	}
	for _, r := range c.Tailoring.Deselect {
		if r.Reason == "" {
			e.add("runtime.compliance.tailoring.deselect: %s: want a reason", r.Rule)
		}
	}
}
