package xccdf

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
)

// Catalogue is what a checklist says about itself.
type Catalogue struct {
	ID       string // of the first benchmark
	Version  string
	Profiles []Profile
	Rules    []Rule
	Values   []string // ids of settings
	// PackagePatterns says that the content asks for packages of dpkg by anything but their whole name.
	PackagePatterns bool
}

// Profile is a selection of rules.
type Profile struct {
	ID, Title, Description, Extends string
	Selects                         []Select
	Values                          []Value
}

// Select chooses one rule or group, or leaves it out.
type Select struct {
	ID       string
	Selected bool
}

// Rule is one rule of a checklist, in words.
type Rule struct {
	ID          string
	Severity    Severity
	Selected    bool // unless a profile says otherwise
	Title       string
	Description string
	Rationale   string
	Fix         string // remediation: fixtext, else the first fix
	Checks      []Check
}

// Limits on a Catalogue.
const (
	maxProfiles = 1000
	maxWords    = 4096 // bytes of a text that are kept
)

// Has reports whether there is a profile.
func (c *Catalogue) Has(profile string) bool {
	return slices.ContainsFunc(c.Profiles, func(p Profile) bool { return p.ID == profile })
}

// ProfileIDs returns the ids of all profiles.
func (c *Catalogue) ProfileIDs() []string {
	var out []string
	for _, p := range c.Profiles {
		out = append(out, p.ID)
	}
	return out
}

// Rule returns the rule of an id, or nil.
func (c *Catalogue) Rule(id string) *Rule {
	for i := range c.Rules {
		if c.Rules[i].ID == id {
			return &c.Rules[i]
		}
	}
	return nil
}

// ErrNoBenchmark says that a document has no checklist of XCCDF 1.2.
var ErrNoBenchmark = errors.New("there is no Benchmark of XCCDF 1.2 in the document: want an SCAP source data stream")

// ReadCatalogue reads a source data stream, or results of oscap, which have the checklist in them.
func ReadCatalogue(r io.Reader) (*Catalogue, error) {
	p := &parser{scanner: newScanner(r)}
	c := &Catalogue{}
	found := false
	for {
		t, err := p.next()
		if errors.Is(err, io.EOF) {
			if !found {
				return nil, ErrNoBenchmark
			}
			return c, nil
		}
		if err != nil {
			return nil, err
		}
		if err := c.packages(p, &t); err != nil {
			return nil, err
		}
		depth := len(p.ends)
		switch t.kind {
		case end:
			p.in.leave(depth + 1)
			continue
		case start:
		case empty, text, cdata, other:
			continue
		}
		if err := p.in.enter(p.scanner, &t, depth); err != nil {
			return nil, err
		}
		if !bytes.HasSuffix(t.name, []byte("Benchmark")) {
			continue
		}
		if space, local := p.in.split(t.name); local != "Benchmark" || space != Namespace {
			continue
		}
		attrs, err := p.attributes(t.attrs)
		if err != nil {
			return nil, err
		}
		e := &element{attrs: attrs}
		if !found {
			c.ID = e.attr("id")
		}
		found = true
		if err := p.children(e, func(part *element) error { return p.benchmark(c, part) }); err != nil {
			return nil, err
		}
	}
}

// packages looks at tags outside of the checklist, which are those of OVAL, for how they name packages.
func (c *Catalogue) packages(p *parser, t *token) error {
	if t.kind != start && t.kind != empty || local(t.name) != "name" || !bytes.Contains(t.attrs, []byte("operation")) {
		return nil
	}
	parent := len(p.ends)
	if t.kind == start {
		parent-- // the tag itself is open
	}
	if local(p.named(parent)) != "dpkginfo_object" {
		return nil
	}
	attrs, err := p.attributes(t.attrs)
	if err != nil {
		return err
	}
	e := &element{attrs: attrs}
	c.PackagePatterns = c.PackagePatterns || e.attr("operation") != "" && e.attr("operation") != "equals"
	return nil
}

// local is a name without its prefix.
func local(name []byte) string {
	if i := bytes.IndexByte(name, ':'); i >= 0 {
		name = name[i+1:]
	}
	return string(name)
}

// benchmark reads one element of a Benchmark or of a Group in it.
func (p *parser) benchmark(c *Catalogue, e *element) (err error) {
	switch e.local {
	case "version":
		c.Version, err = p.words(e)
		return err
	case "Group":
		return p.children(e, func(part *element) error {
			if part.local == "version" {
				return p.skip(part)
			}
			return p.benchmark(c, part)
		})
	case "Value":
		if len(c.Values) == MaxRules {
			return wrong("more than %d values", MaxRules)
		}
		c.Values = append(c.Values, e.attr("id"))
	case "Profile":
		if len(c.Profiles) == maxProfiles {
			return wrong("more than %d profiles", maxProfiles)
		}
		profile, err := p.profile(e)
		c.Profiles = append(c.Profiles, profile)
		return err
	case "Rule":
		if len(c.Rules) == MaxRules {
			return wrong("more than %d rules", MaxRules)
		}
		rule, err := p.described(e)
		c.Rules = append(c.Rules, rule)
		return err
	}
	return p.skip(e)
}

func (p *parser) profile(e *element) (Profile, error) {
	out := Profile{ID: e.attr("id"), Extends: e.attr("extends")}
	return out, p.children(e, func(c *element) (err error) {
		switch c.local {
		case "title":
			out.Title, err = p.words(c)
			return err
		case "description":
			out.Description, err = p.words(c)
			return err
		case "select":
			out.Selects = append(out.Selects, Select{ID: c.attr("idref"), Selected: isTrue(c.attr("selected"))})
		case "set-value":
			v, err := p.words(c)
			out.Values = append(out.Values, Value{ID: c.attr("idref"), Value: v})
			return err
		}
		return p.skip(c)
	})
}

// described reads what a Rule says of itself.
func (p *parser) described(e *element) (Rule, error) {
	r := Rule{ID: e.attr("id"), Selected: e.attr("selected") == "" || isTrue(e.attr("selected"))}
	var err error
	if r.Severity, err = severity(e.attr("severity")); err != nil {
		return r, err
	}
	fix := ""
	err = p.children(e, func(c *element) (err error) {
		switch c.local {
		case "title":
			r.Title, err = p.words(c)
		case "description":
			r.Description, err = p.words(c)
		case "rationale":
			r.Rationale, err = p.words(c)
		case "fixtext":
			r.Fix, err = p.words(c)
		case "fix":
			if fix != "" {
				return p.skip(c)
			}
			fix, err = p.words(c)
		case "check":
			rule := RuleResult{}
			err = p.ofRule(&rule, c)
			r.Checks = append(r.Checks, rule.Checks...)
		default:
			return p.skip(c)
		}
		return err
	})
	if r.Fix == "" {
		r.Fix = fix
	}
	return r, err
}

func isTrue(s string) bool { return s == "true" || s == "1" }

// words returns text of some length with single spaces.
func (p *parser) words(e *element) (string, error) {
	s, err := p.text(e)
	if err != nil {
		return "", err
	}
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxWords {
		s = strings.ToValidUTF8(s[:maxWords], "") + " ..."
	}
	return s, nil
}
