package sigma

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strings"
)

// expr is a condition: a selection, or and, or, not over others.
type expr struct {
	op   op
	sel  *selection
	kids []*expr
}

type op uint8

const (
	opSelection op = iota
	opAnd
	opOr
	opNot
)

// parser reads a condition by descent: or binds least, then and, then not.
type parser struct {
	tokens     []string
	selections map[string]*selection
	used       map[string]bool
}

var conditionToken = regexp.MustCompile(`\(|\)|[^\s()]+`)

// parseCondition compiles one condition over the selections of a rule, and notes in used which of them it names.
func parseCondition(text string, selections map[string]*selection, used map[string]bool) (*expr, error) {
	p := &parser{tokens: conditionToken.FindAllString(text, maxTokens+1), selections: selections, used: used}
	if len(p.tokens) > maxTokens {
		return nil, fmt.Errorf("condition: more than %d words", maxTokens)
	}
	e, err := p.or(0)
	if err == nil && len(p.tokens) > 0 {
		err = fmt.Errorf("unexpected %q", p.tokens[0])
	}
	if err != nil {
		return nil, fmt.Errorf("condition %.200q: %w", text, err)
	}
	return e, nil
}

func (p *parser) peek() string {
	if len(p.tokens) == 0 {
		return ""
	}
	return p.tokens[0]
}

// word takes the next word when it is w.
func (p *parser) word(w string) bool {
	if !strings.EqualFold(p.peek(), w) {
		return false
	}
	p.tokens = p.tokens[1:]
	return true
}

func (p *parser) or(depth int) (*expr, error) { return p.chain("or", opOr, depth, p.and) }

func (p *parser) and(depth int) (*expr, error) { return p.chain("and", opAnd, depth, p.not) }

// chain reads operands with one operator between them.
func (p *parser) chain(operator string, o op, depth int, next func(int) (*expr, error)) (*expr, error) {
	e, err := next(depth)
	if err != nil {
		return nil, err
	}
	kids := []*expr{e}
	for p.word(operator) {
		if e, err = next(depth); err != nil {
			return nil, err
		}
		kids = append(kids, e)
	}
	return join(o, kids), nil
}

func join(o op, kids []*expr) *expr {
	if len(kids) == 1 {
		return kids[0]
	}
	return &expr{op: o, kids: kids}
}

func (p *parser) not(depth int) (*expr, error) {
	if depth++; depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	if p.word("not") {
		e, err := p.not(depth)
		if err != nil {
			return nil, err
		}
		return &expr{op: opNot, kids: []*expr{e}}, nil
	}
	if p.word("(") {
		e, err := p.or(depth)
		if err != nil {
			return nil, err
		}
		if !p.word(")") {
			return nil, errors.New("a parenthesis is not closed")
		}
		return e, nil
	}
	return p.operand()
}

// operand reads a selection, "1 of x*", "any of x*" or "all of x*".
func (p *parser) operand() (*expr, error) {
	if len(p.tokens) == 0 {
		return nil, errors.New("ends too early")
	}
	w := p.tokens[0]
	p.tokens = p.tokens[1:]
	if s, ok := p.selections[w]; ok && !(len(p.tokens) > 0 && strings.EqualFold(p.peek(), "of")) {
		p.used[w] = true
		return &expr{sel: s}, nil
	}
	var o op
	switch strings.ToLower(w) {
	case "1", "any":
		o = opOr
	case "all":
		o = opAnd
	default:
		return nil, fmt.Errorf("%q is no selection of this rule", w)
	}
	if !p.word("of") || len(p.tokens) == 0 {
		return nil, fmt.Errorf("want %q to go on with: of PATTERN", w)
	}
	return p.several(o)
}

// several reads what stands behind "of".
func (p *parser) several(o op) (*expr, error) {
	pat := p.tokens[0]
	p.tokens = p.tokens[1:]
	named := []rune(pat)
	for i, r := range named {
		if r == '*' {
			named[i] = star
		}
	}
	var names []string
	for name := range p.selections {
		ok := !strings.HasPrefix(name, "_")
		if !strings.EqualFold(pat, "them") {
			ok = globbed(named, []byte(name))
		}
		if ok {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no selection is named like %q", pat)
	}
	sort.Strings(names)
	var kids []*expr
	for _, n := range names {
		p.used[n] = true
		kids = append(kids, &expr{sel: p.selections[n]})
	}
	return join(o, kids), nil
}

// gate returns tokens of which every event that e matches has at least one, and how well they tell events apart (1 is best); nil when there are
// no such tokens.
func (e *expr) gate() ([]Token, int) {
	switch e.op {
	case opSelection:
		return e.sel.gate()
	case opAnd:
		var best []Token
		rank := 0
		for _, k := range e.kids {
			if t, r := k.gate(); t != nil && (best == nil || r < rank || r == rank && len(t) < len(best)) {
				best, rank = t, r
			}
		}
		return best, rank
	case opOr:
		return union(len(e.kids), func(i int) ([]Token, int) { return e.kids[i].gate() })
	}
	return nil, 0 // what must not be there tells nothing
}

func union(n int, gate func(int) ([]Token, int)) (all []Token, rank int) {
	for i := range n {
		t, r := gate(i)
		if t == nil {
			return nil, 0
		}
		all, rank = append(all, t...), max(rank, r)
	}
	slices.Sort(all)
	return slices.Compact(all), rank
}

func (s *selection) gate() ([]Token, int) {
	return union(len(s.maps), func(i int) ([]Token, int) { return s.maps[i].gate() })
}

func (m *fieldMap) gate() (best []Token, rank int) {
	for i := range m.items {
		it := &m.items[i]
		t := it.gate()
		if t != nil && (best == nil || it.field.Gate < rank || it.field.Gate == rank && len(t) < len(best)) {
			best, rank = t, it.field.Gate
		}
	}
	return best, rank
}

func (it *item) gate() []Token {
	if it.field.Gate == 0 || it.not || it.exists != 0 {
		return nil
	}
	var out []Token
	for i := range it.tests {
		t := &it.tests[i]
		// Tokens do without the case of ASCII letters only.
		if t.kind != isText || t.text.shape != exact || !ascii(t.text.text) {
			return nil
		}
		out = append(out, TokenOf(it.field.ID, t.text.text))
		if it.all {
			break
		}
	}
	return out
}

func ascii(b []byte) bool { return !slices.ContainsFunc(b, func(c byte) bool { return c >= 0x80 }) }
