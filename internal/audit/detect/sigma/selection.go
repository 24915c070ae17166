package sigma

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
)

// selection is one search identifier: any of its maps matches.
type selection struct {
	maps []fieldMap
}

// fieldMap is a map of a selection: all its items match, in one record when it names a type.
type fieldMap struct {
	scoped bool
	items  []item
}

// item is one field of a map with what it is held against.
type item struct {
	field  Field
	tests  []test
	all    bool
	not    bool // neq
	exists int8 // 1: has values; -1: has none; 0: not asked
}

// test is one value of an item.
type test struct {
	kind   testKind
	text   *pattern
	re     *regexp.Regexp
	number int64
	prefix netip.Prefix
	ref    Field
	mods   *modifiers // of a reference to another field
}

type testKind uint8

const (
	isText testKind = iota
	isRegexp
	isLess
	isLessOrEqual
	isGreater
	isGreaterOrEqual
	isPrefix
	isRef
	isNull
)

// builder compiles the detection of one rule.
type builder struct {
	schema Schema
	src    LogSource
	values map[string][]string // of placeholders
	count  int                 // values so far
}

func (b *builder) selection(v any) (*selection, error) {
	s := new(selection)
	switch v := v.(type) {
	case map[string]any:
		m, err := b.fieldMap(v)
		if err != nil {
			return nil, err
		}
		s.maps = []fieldMap{*m}
	case []any:
		var words []any
		for _, x := range v {
			if one, ok := x.(map[string]any); ok {
				m, err := b.fieldMap(one)
				if err != nil {
					return nil, err
				}
				s.maps = append(s.maps, *m)
				continue
			}
			words = append(words, x)
		}
		if len(words) > 0 {
			m, err := b.fieldMap(map[string]any{"": words})
			if err != nil {
				return nil, err
			}
			s.maps = append(s.maps, *m)
		}
	default:
		return nil, errors.New("want a map of fields, or a list of maps or keywords")
	}
	if len(s.maps) == 0 {
		return nil, errors.New("is empty")
	}
	return s, nil
}

func (b *builder) fieldMap(v map[string]any) (*fieldMap, error) {
	if len(v) == 0 {
		return nil, errors.New("an empty map would match everything")
	}
	m := new(fieldMap)
	for key, values := range v {
		it, err := b.item(key, values)
		if err != nil {
			return nil, err
		}
		m.items = append(m.items, *it)
		m.scoped = m.scoped || it.field.Type
	}
	// What costs least comes first, and what was written in a map has no order.
	slices.SortFunc(m.items, func(a, b item) int { return 4*(a.cost()-b.cost()) + sign(a.field.ID-b.field.ID) })
	return m, nil
}

func sign(n int) int { return max(-1, min(1, n)) }

func (it *item) cost() int {
	switch {
	case it.field.Type:
		return 0
	case it.field.Gate > 0:
		return 1
	case len(it.tests) > 0 && it.tests[0].kind == isRegexp:
		return 3
	case it.field.Keyword:
		return 4
	}
	return 2
}

func (b *builder) item(key string, v any) (*item, error) {
	name, mods, err := parseField(key)
	if err != nil {
		return nil, err
	}
	it := &item{all: mods.all, not: mods.neq}
	if it.field, err = b.field(name); err != nil {
		return nil, err
	}
	if name == "" && !mods.re && !mods.exists {
		// A keyword stands anywhere in the event.
		mods.wrapStart, mods.wrapEnd = true, true
	}
	if mods.exists {
		yes, ok := v.(bool)
		if !ok {
			return nil, fmt.Errorf("field %s: want true or false", key)
		}
		it.exists = -1
		if yes {
			it.exists = 1
		}
		return it, nil
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("field %s: has no values", key)
	}
	if mods.all && len(list) < 2 {
		return nil, fmt.Errorf("field %s: all needs more than one value", key)
	}
	for _, x := range list {
		if err := b.tests(it, mods, x); err != nil {
			return nil, fmt.Errorf("field %s: %w", key, err)
		}
	}
	return it, nil
}

func (b *builder) field(name string) (Field, error) {
	f, err := b.schema.Field(b.src, name)
	if err == nil && (f.ID < 0 || f.ID >= MaxFields) {
		err = fmt.Errorf("field %q has number %d", name, f.ID)
	}
	return f, err
}

// tests adds what one value of the rule comes to.
func (b *builder) tests(it *item, mods *modifiers, v any) error {
	var s string
	var all []string
	switch v := v.(type) {
	case nil:
		it.tests = append(it.tests, test{kind: isNull})
		return nil
	case string:
		s = v
	case json.Number:
		s = v.String()
	case bool:
		// YAML reads yes, which audit writes, as true.
		if all = []string{"false", "no"}; v {
			all = []string{"true", "yes"}
		}
	default:
		return errors.New("want text or numbers")
	}
	if len(s) > maxText {
		return fmt.Errorf("a value has %d bytes, more than %d", len(s), maxText)
	}
	if all == nil {
		all = []string{s}
	}
	var err error
	if mods.expand {
		if all, err = expand(all, b.values); err != nil {
			return err
		}
	}
	for _, change := range mods.change {
		if all, err = change(all); err != nil {
			return err
		}
	}
	if len(all) == 0 {
		return fmt.Errorf("%q is too short to be told when encoded", s)
	}
	if mods.all && len(all) > 1 {
		return fmt.Errorf("all cannot stand with what makes several values of one (%q)", s)
	}
	for _, s := range all {
		if b.count++; b.count > maxValues {
			return fmt.Errorf("more than %d values in a rule", maxValues)
		}
		t, err := b.test(it, mods, s)
		if err != nil {
			return err
		}
		it.tests = append(it.tests, *t)
	}
	return nil
}

func (b *builder) test(it *item, mods *modifiers, s string) (t *test, err error) {
	switch {
	case mods.ref:
		t = &test{kind: isRef, mods: mods}
		t.ref, err = b.field(s)
		return t, err
	case mods.re:
		return regexpTest(mods, s)
	case mods.cidr:
		t = &test{kind: isPrefix}
		if t.prefix, err = netip.ParsePrefix(s); err != nil {
			return nil, fmt.Errorf("%q is no network such as 10.0.0.0/8", s)
		}
		return t, nil
	case mods.number != "":
		t = &test{kind: map[string]testKind{"lt": isLess, "lte": isLessOrEqual, "gt": isGreater, "gte": isGreaterOrEqual}[mods.number]}
		if t.number, err = strconv.ParseInt(s, 10, 64); err != nil {
			return nil, fmt.Errorf("%q is no whole number", s)
		}
		return t, nil
	}
	p := split(s)
	if mods.wrapStart {
		p = append([]rune{star}, p...)
	}
	if mods.wrapEnd {
		p = append(p, star)
	}
	if it.field.Check != nil && !slices.ContainsFunc(p, isWild) {
		if err := it.field.Check(string(p)); err != nil {
			return nil, err
		}
	}
	return &test{kind: isText, text: compilePattern(p, mods.cased)}, nil
}

func regexpTest(mods *modifiers, s string) (*test, error) {
	if len(s) > maxRegexp {
		return nil, fmt.Errorf("a regular expression has %d bytes, more than %d", len(s), maxRegexp)
	}
	if mods.flags != "" {
		s = "(?" + mods.flags + ")" + s
	}
	re, err := regexp.Compile(s)
	if err != nil {
		return nil, fmt.Errorf("%w (regular expressions are RE2: no look-around, no back references)", err)
	}
	return &test{kind: isRegexp, re: re}, nil
}
