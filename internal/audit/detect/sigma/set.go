package sigma

import (
	"errors"
	"fmt"
	"slices"
)

// Set is a compiled set of rules. It is never changed and may be used by many at a time.
type Set struct {
	rules    []rule
	always   []int           // rules that have to be tried with every event
	gated    map[Token][]int // rules to try with events that have the token
	children [][]int         // of each rule: the correlations that wait for it
	byKey    map[string]int
}

// rule is a compiled rule: expr for a detection, corr for a correlation.
type rule struct {
	doc    *Document
	expr   *expr
	corr   *compiled
	silent bool // only of interest to a correlation
}

// Compile compiles documents, those of all files together: correlations refer to rules of others. Values are those of placeholders ("%Name%"
// without the signs). All faults are reported.
func Compile(docs []Document, schema Schema, values map[string][]string) (*Set, error) {
	s := &Set{gated: map[Token][]int{}, byKey: map[string]int{}}
	var errs []error
	for i := range docs {
		d := &docs[i]
		for _, key := range []string{d.ID, d.Name} {
			if key == "" {
				continue
			}
			if other, twice := s.byKey[key]; twice {
				errs = append(errs, fmt.Errorf("%s: %q is the name of a rule of %s, too", d.File, key, docs[other].File))
			}
			s.byKey[key] = i
		}
		s.rules = append(s.rules, rule{doc: d})
	}
	s.children = make([][]int, len(s.rules))
	for i := range s.rules {
		if err := s.compile(i, schema, values); err != nil {
			errs = append(errs, fmt.Errorf("%s: rule %s: %w", s.rules[i].doc.File, s.rules[i].doc.Key(), err))
		}
	}
	errs = append(errs, s.checkChains())
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	s.index()
	return s, nil
}

func (s *Set) compile(i int, schema Schema, values map[string][]string) error {
	r := &s.rules[i]
	if r.doc.Correlation != nil {
		return s.correlation(i, schema)
	}
	var err error
	r.expr, err = detection(r.doc, schema, values)
	return err
}

// detection compiles the detection of a rule, and what its log source means.
func detection(d *Document, schema Schema, values map[string][]string) (*expr, error) {
	implied, err := schema.Source(d.LogSource)
	if err != nil {
		return nil, err
	}
	b := &builder{schema: schema, src: d.LogSource, values: values}
	var all []*expr
	if implied != nil {
		sel, err := (&builder{schema: schema}).selection(implied)
		if err != nil {
			return nil, fmt.Errorf("log source: %w", err)
		}
		all = append(all, &expr{sel: sel})
	}
	selections := map[string]*selection{}
	for name, raw := range d.Detection {
		if name == "condition" {
			continue
		}
		v, err := decode(raw)
		if err != nil {
			return nil, fmt.Errorf("selection %s: %w", name, err)
		}
		if selections[name], err = b.selection(v); err != nil {
			return nil, fmt.Errorf("selection %s: %w", name, err)
		}
	}
	e, err := conditions(d, selections)
	if err != nil {
		return nil, err
	}
	return join(opAnd, append(all, e)), nil
}

func conditions(d *Document, selections map[string]*selection) (*expr, error) {
	texts, err := d.conditions()
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	var any []*expr
	for _, text := range texts {
		e, err := parseCondition(text, selections, used)
		if err != nil {
			return nil, err
		}
		any = append(any, e)
	}
	for name := range selections {
		if !used[name] {
			return nil, fmt.Errorf("no condition uses selection %s", name)
		}
	}
	return join(opOr, any), nil
}

// index sorts the rules by what an event must have for them.
func (s *Set) index() {
	for i := range s.rules {
		r := &s.rules[i]
		if r.expr == nil {
			continue
		}
		tokens, _ := r.expr.gate()
		if tokens == nil {
			s.always = append(s.always, i)
		}
		for _, t := range tokens {
			s.gated[t] = append(s.gated[t], i)
		}
	}
}

// Len is the number of rules; they are numbered in the order of the documents.
func (s *Set) Len() int { return len(s.rules) }

// Rule returns the document of a rule.
func (s *Set) Rule(i int) *Document { return s.rules[i].doc }

// Lookup returns the number of the rule with a name or id.
func (s *Set) Lookup(key string) (int, bool) {
	i, ok := s.byKey[key]
	return i, ok
}

// Silent reports whether a rule only feeds correlations: one refers to it, and none asks to hear of it by itself (generate).
func (s *Set) Silent(i int) bool { return s.rules[i].silent }

// Feeds returns the rules that a correlation refers to; nil for a detection.
func (s *Set) Feeds(i int) []int {
	if c := s.rules[i].corr; c != nil {
		return slices.Clone(c.rules)
	}
	return nil
}

// Ungated returns the rules that have to be tried with every event: those that cost most.
func (s *Set) Ungated() []int { return slices.Clone(s.always) }
