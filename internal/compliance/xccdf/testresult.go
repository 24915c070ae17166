package xccdf

import (
	"slices"
)

// testResult reads the whole element.
func (p *parser) testResult(e *element) (*TestResult, error) {
	r := &TestResult{ID: e.attr("id"), Version: e.attr("version"), TestSystem: e.attr("test-system")}
	var err error
	if r.Start, err = moment(e.attr("start-time")); err != nil {
		return nil, err
	}
	if r.End, err = moment(e.attr("end-time")); err != nil {
		return nil, err
	}
	once := map[string]bool{}
	return r, p.children(e, func(c *element) error {
		switch c.local {
		case "benchmark", "profile", "target", "tailoring-file": // a second one would say something else to another reader
			if once[c.local] {
				return wrong("%s is there twice", c.local)
			}
			once[c.local] = true
		}
		return p.part(r, c)
	})
}

// part reads one element within the TestResult.
func (p *parser) part(r *TestResult, c *element) (err error) {
	switch c.local {
	case "benchmark":
		r.Benchmark = Benchmark{ID: c.attr("id"), Href: c.attr("href")}
	case "profile":
		r.Profile = c.attr("idref")
	case "tailoring-file":
		r.Tailoring = Tailoring{ID: c.attr("id"), Href: c.attr("href"), Version: c.attr("version")}
	case "platform":
		r.Platforms = append(r.Platforms, c.attr("idref"))
	case "title":
		r.Title, err = p.text(c)
		return err
	case "target":
		r.Target, err = p.text(c)
		return err
	case "target-address":
		s, err := p.text(c)
		r.Addresses = append(r.Addresses, s)
		return err
	case "target-facts":
		return p.children(c, func(f *element) error {
			v, err := p.text(f)
			r.Facts = append(r.Facts, Fact{Name: f.attr("name"), Type: f.attr("type"), Value: v})
			return err
		})
	case "set-value":
		v, err := p.text(c)
		r.Values = append(r.Values, Value{ID: c.attr("idref"), Value: v})
		return err
	case "rule-result":
		return p.rule(r, c)
	case "score":
		return p.score(r, c)
	}
	return p.skip(c)
}

func (p *parser) score(r *TestResult, c *element) error {
	s := Score{System: c.attr("system")}
	if s.System == "" {
		s.System = DefaultScore
	}
	v, err := p.text(c)
	if err != nil {
		return err
	}
	if s.Value, err = number(v, 0); err != nil {
		return err
	}
	s.Maximum, err = number(c.attr("maximum"), 100)
	r.Scores = append(r.Scores, s)
	return err
}

// rule reads one rule-result.
func (p *parser) rule(r *TestResult, e *element) error {
	if len(r.Rules) == MaxRules {
		return wrong("more than %d rule results", MaxRules)
	}
	rule := RuleResult{ID: e.attr("idref"), Version: e.attr("version"), Role: e.attr("role")}
	if rule.ID == "" {
		return wrong("a rule result without idref")
	}
	var err error
	if rule.Severity, err = severity(e.attr("severity")); err != nil {
		return err
	}
	if rule.Weight, err = number(e.attr("weight"), 1); err != nil {
		return err
	}
	if rule.Time, err = moment(e.attr("time")); err != nil {
		return err
	}
	if err := p.children(e, func(c *element) error { return p.ofRule(&rule, c) }); err != nil {
		return err
	}
	if rule.Outcome == "" {
		return wrong("rule %.120q has no result", rule.ID)
	}
	r.Rules = append(r.Rules, rule)
	return nil
}

// ofRule reads one element within a rule-result.
func (p *parser) ofRule(rule *RuleResult, c *element) error {
	switch c.local {
	case "result":
		s, err := p.text(c)
		if err != nil {
			return err
		}
		if rule.Outcome != "" {
			return wrong("rule %.120q has two results", rule.ID)
		}
		if !slices.Contains(Outcomes, Outcome(s)) {
			return wrong("rule %.120q has the result %.40q", rule.ID, s)
		}
		rule.Outcome = Outcome(s)
		return nil
	case "instance":
		s, err := p.text(c)
		rule.Instance += s
		return err
	case "ident":
		s, err := p.text(c)
		rule.Idents = append(rule.Idents, Ident{System: c.attr("system"), Value: s})
		return err
	case "message":
		s, err := p.text(c)
		rule.Messages = append(rule.Messages, Message{Severity: c.attr("severity"), Text: s})
		return err
	case "check":
		k := Check{System: c.attr("system")}
		err := p.children(c, func(ref *element) error {
			if ref.local == "check-content-ref" {
				k.Href, k.Name = ref.attr("href"), ref.attr("name")
			}
			return p.skip(ref)
		})
		rule.Checks = append(rule.Checks, k)
		return err
	}
	return p.skip(c)
}
