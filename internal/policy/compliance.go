package policy

import (
	"strings"

	"touchstone.dev/touchstone/internal/compliance/content"
	"touchstone.dev/touchstone/internal/compliance/verdict"
	"touchstone.dev/touchstone/internal/compliance/xccdf"
)

// Compliance is what a compliance scan (OpenSCAP) of a worker must show, as part of level 5.
type Compliance struct {
	// Mode says whether a good scan is demanded (required), what it lacks is a warning (warn), or it is only shown (any).
	Mode string `json:"mode,omitempty" words:"any warn required"`
	// Profile is the id of the profile that must have been used; empty: any.
	Profile string `json:"profile,omitempty"`
	// Content are the SHA-256 of content that counts, or "baseline": that which comes with this version of AIAS; empty: any.
	Content []string `json:"content,omitempty"`
	// Tailorings are the SHA-256 of tailorings that may be used; empty: none.
	Tailorings []string `json:"tailorings,omitempty"`
	// Tailoring changes the profile, by a tailoring that AIAS makes and hands to workers; nil: it is used as it is.
	Tailoring *Tailoring `json:"tailoring,omitempty"`
	// MaxAge is how old the newest scan may be; 0: 36h.
	MaxAge Duration `json:"maxAge,omitempty"`
	// Required are the ids of rules that must pass, whatever MaxFailed says.
	Required []string `json:"required,omitempty"`
	// MaxFailed is how many rules of a severity may fail; -1: any number. One whose severity is not known counts as medium.
	MaxFailed MaxFailed `json:"maxFailed,omitempty"`
	// Undecided says what rules are that were not decided (error, unknown, notchecked).
	Undecided string `json:"undecided,omitempty" words:"fail ignore"`
	// MinScore is the least score, in per cent; 0: none.
	MinScore int `json:"minScore,omitempty"`
	// Waivers let single rules fail for a time.
	Waivers []Waiver `json:"waivers,omitempty"`
}

// MaxFailed is a number of rules for each severity.
type MaxFailed struct {
	High   int `json:"high,omitempty"`
	Medium int `json:"medium,omitempty"`
	Low    int `json:"low,omitempty"`
}

// Waiver lets one rule of a compliance scan fail.
type Waiver struct {
	Rule   string `json:"rule"`
	Reason string `json:"reason"`
	Owner  string `json:"owner"`
	Until  *Time  `json:"until"`
}

// Rules are the demands as package verdict takes them.
func (c *Compliance) Rules() *verdict.Rules {
	r := &verdict.Rules{
		Profile: c.Profile, Content: digests(c.Content), Tailoring: c.Tailorings, MaxAge: c.MaxAge.Duration, Required: c.Required,
		MaxFailed:       verdict.Budget{High: c.MaxFailed.High, Medium: c.MaxFailed.Medium, Low: c.MaxFailed.Low},
		IgnoreUndecided: c.Undecided == "ignore", MinScore: float64(c.MinScore),
	}
	if t := c.Tailored(); t != nil {
		r.Profile, r.Tailoring, r.MustTailor = t.ID(), []string{t.Digest()}, true
	}
	for _, w := range c.Waivers {
		r.Waivers = append(r.Waivers, verdict.Waiver{Rule: w.Rule, Reason: w.Reason, Owner: w.Owner, Until: w.Until.Time})
	}
	return r
}

// digests are those of content, with that of the baseline for its name.
func digests(names []string) []string {
	var out []string
	for _, d := range names {
		if d == content.Name {
			d = content.Digest()
		}
		out = append(out, d)
	}
	return out
}

func (c *Compliance) validate(e *errs) {
	for name, list := range map[string][]string{"content": digests(c.Content), "tailorings": c.Tailorings} {
		for _, d := range list {
			if !isDigest(d) || d != strings.ToLower(d) {
				e.add("runtime.compliance.%s: %q is not a SHA-256 in lower case", name, d)
			}
		}
	}
	c.validateTailoring(e)
	if c.MaxAge.Duration < 0 {
		e.add("runtime.compliance.maxAge is %s: want a time that is not negative", c.MaxAge)
	}
	if c.MinScore < 0 || c.MinScore > 100 {
		e.add("runtime.compliance.minScore is %d: want 0 to 100", c.MinScore)
	}
	if len(c.Required)+len(c.Waivers) > xccdf.MaxRules {
		e.add("runtime.compliance: more than %d rules", xccdf.MaxRules)
	}
	for _, w := range c.Waivers {
		if w.Rule == "" || w.Reason == "" || w.Owner == "" || w.Until == nil {
			e.add("runtime.compliance.waivers: rule %q: want a rule, a reason, an owner and an end (until)", w.Rule)
		}
	}
}
