package sigma

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Correlation is the section of a rule that counts or orders matches of others.
type Correlation struct {
	Type     string                       `json:"type"`
	Rules    []string                     `json:"rules"`
	GroupBy  []string                     `json:"group-by"`
	Timespan string                       `json:"timespan"`
	Aliases  map[string]map[string]string `json:"aliases"`
	// Condition is a map of gt, gte, eq and, for value_count, field.
	Condition map[string]json.RawMessage `json:"condition"`
	Generate  bool                       `json:"generate"`
}

// The types of correlations.
const (
	eventCount      = "event_count"
	valueCount      = "value_count"
	temporal        = "temporal"
	temporalOrdered = "temporal_ordered"
)

// compiled is a correlation ready for use.
type compiled struct {
	kind  string
	rules []int
	by    [][]Field // of each rule of rules: the fields that make the group
	value []Field   // of each rule: what value_count counts
	span  time.Duration
	least int // matches, values or rules that it takes
}

func (s *Set) correlation(i int, schema Schema) error {
	d := s.rules[i].doc
	c := &compiled{kind: d.Correlation.Type}
	if err := c.read(d.Correlation); err != nil {
		return fmt.Errorf("correlation: %w", err)
	}
	for _, key := range d.Correlation.Rules {
		n, ok := s.byKey[key]
		switch {
		case !ok:
			return fmt.Errorf("correlation: there is no rule %q", key)
		case slices.Contains(c.rules, n):
			return fmt.Errorf("correlation: rule %q is there twice", key)
		}
		c.rules = append(c.rules, n)
		if !d.Correlation.Generate {
			s.rules[n].silent = true
		}
		s.children[n] = append(s.children[n], i)
	}
	s.rules[i].corr = c
	return c.fields(s, d.Correlation, schema)
}

// read checks type, timespan and condition.
func (c *compiled) read(d *Correlation) (err error) {
	if c.span, err = timespan(d.Timespan); err != nil {
		return err
	}
	if len(d.Rules) == 0 || len(d.Rules) > maxDepth || len(d.GroupBy) > 8 {
		return fmt.Errorf("want 1 to %d rules and at most 8 fields in group-by", maxDepth)
	}
	switch c.kind {
	case eventCount, valueCount:
		if len(d.Condition) == 0 {
			return fmt.Errorf("%s needs a condition", c.kind)
		}
	case temporal, temporalOrdered:
		c.least = len(d.Rules)
		if len(d.Rules) < 2 {
			return fmt.Errorf("%s needs at least two rules", c.kind)
		}
		if c.kind == temporalOrdered && len(d.Condition) > 0 {
			return errors.New("temporal_ordered has no condition: all rules must match")
		}
	default:
		return fmt.Errorf("type %q: want event_count, value_count, temporal or temporal_ordered", c.kind)
	}
	for key, v := range d.Condition {
		if err := c.limit(key, v); err != nil {
			return err
		}
	}
	if c.kind == temporal && c.least > len(d.Rules) {
		return fmt.Errorf("condition: %d of %d rules", c.least, len(d.Rules))
	}
	if c.least < 1 || c.least > maxCount {
		return fmt.Errorf("condition: want a count of 1 to %d", maxCount)
	}
	return nil
}

func (c *compiled) limit(key string, v json.RawMessage) error {
	n, err := strconv.Atoi(string(v))
	switch {
	case key == "field" && c.kind == valueCount:
		return nil
	case key != "gte" && key != "gt" && key != "eq":
		return fmt.Errorf("condition %q: only gt, gte and eq can be told while time goes on", key)
	case err != nil:
		return fmt.Errorf("condition %s: want a number", key)
	case key == "gt":
		n++
	}
	c.least = max(c.least, n)
	if c.kind == temporal {
		c.least = n
	}
	return nil
}

// fields resolves group-by and field for each of the rules.
func (c *compiled) fields(s *Set, d *Correlation, schema Schema) error {
	counted := ""
	if c.kind == valueCount {
		if err := json.Unmarshal(d.Condition["field"], &counted); err != nil || counted == "" {
			return errors.New("correlation: value_count needs a field in its condition")
		}
	}
	for alias, of := range d.Aliases {
		if !slices.Contains(d.GroupBy, alias) && alias != counted {
			return fmt.Errorf("correlation: nothing uses alias %s", alias)
		}
		for key := range of {
			if !slices.Contains(d.Rules, key) {
				return fmt.Errorf("correlation: alias %s is for %s, which is no rule of this correlation", alias, key)
			}
		}
	}
	for k, n := range c.rules {
		src := s.rules[n].doc.LogSource
		resolve := func(name string) (Field, error) {
			if of, ok := d.Aliases[name]; ok {
				if name = of[d.Rules[k]]; name == "" {
					return Field{}, fmt.Errorf("correlation: an alias says nothing of rule %s", d.Rules[k])
				}
			}
			f, err := schema.Field(src, name)
			if err == nil && (f.ID < 0 || f.ID >= MaxFields) {
				err = fmt.Errorf("field %q has number %d", name, f.ID)
			}
			return f, err
		}
		var by []Field
		for _, name := range d.GroupBy {
			f, err := resolve(name)
			if err != nil {
				return err
			}
			by = append(by, f)
		}
		c.by = append(c.by, by)
		var f Field
		if counted != "" {
			var err error
			if f, err = resolve(counted); err != nil {
				return err
			}
		}
		c.value = append(c.value, f)
	}
	return nil
}

// checkChains refuses correlations that wait for themselves, and chains that are too long.
func (s *Set) checkChains() error {
	// depth of a rule: 0 not known yet, -1 being looked at, else its length plus one.
	depth := make([]int, len(s.rules))
	var visit func(i, level int) error
	visit = func(i, level int) error {
		if depth[i] == -1 || level > maxDepth {
			return fmt.Errorf("%s: rule %s: correlations wait for each other, or more than %d in a row", s.rules[i].doc.File, s.rules[i].doc.Key(), maxDepth)
		}
		if depth[i] > 0 {
			return nil
		}
		depth[i] = -1
		for _, c := range s.children[i] {
			if err := visit(c, level+1); err != nil {
				return err
			}
		}
		depth[i] = 1
		return nil
	}
	for i := range s.rules {
		if err := visit(i, 0); err != nil {
			return err
		}
	}
	return nil
}
