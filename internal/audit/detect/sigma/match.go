package sigma

import (
	"bytes"
	"net/netip"
	"strconv"
)

// Matcher holds what matching one event after the other needs; it is for one goroutine. The zero value is ready.
type Matcher struct {
	ev     Event
	fields map[int][]value // of the whole event, as far as somebody asked
	spare  [][]value
	bytes  [][]byte
	record []value // of one record
	tokens []Token
	seen   []uint32 // round in which a rule was looked at
	round  uint32
}

// Match calls hit for each detection rule of the set that matches the event, with its number. Correlations are the Correlator's.
func (m *Matcher) Match(s *Set, ev Event, hit func(rule int)) {
	m.begin(s, ev)
	for _, i := range s.always {
		if m.eval(s.rules[i].expr) {
			hit(i)
		}
	}
	for _, t := range m.tokens {
		for _, i := range s.gated[t] {
			if m.seen[i] == m.round {
				continue
			}
			m.seen[i] = m.round
			if m.eval(s.rules[i].expr) {
				hit(i)
			}
		}
	}
	m.ev = nil
}

func (m *Matcher) begin(s *Set, ev Event) {
	m.ev = ev
	if m.fields == nil {
		m.fields = map[int][]value{}
	}
	for _, v := range m.fields {
		m.spare = append(m.spare, v[:0])
	}
	clear(m.fields)
	if len(m.seen) < len(s.rules) {
		m.seen = make([]uint32, len(s.rules))
	}
	if m.round++; m.round == 0 {
		clear(m.seen)
		m.round = 1
	}
	m.tokens = ev.Tokens(m.tokens[:0])
}

func (m *Matcher) eval(e *expr) bool {
	switch e.op {
	case opSelection:
		return m.selection(e.sel)
	case opAnd:
		for _, k := range e.kids {
			if !m.eval(k) {
				return false
			}
		}
		return true
	case opOr:
		for _, k := range e.kids {
			if m.eval(k) {
				return true
			}
		}
		return false
	}
	return !m.eval(e.kids[0])
}

func (m *Matcher) selection(s *selection) bool {
	for i := range s.maps {
		if m.fieldMap(&s.maps[i]) {
			return true
		}
	}
	return false
}

func (m *Matcher) fieldMap(f *fieldMap) bool {
	if !f.scoped {
		return m.items(f, -1)
	}
	for r := range m.ev.Records() {
		if m.items(f, r) {
			return true
		}
	}
	return false
}

func (m *Matcher) items(f *fieldMap, record int) bool {
	for i := range f.items {
		if !m.item(&f.items[i], record) {
			return false
		}
	}
	return true
}

// values returns those of a field. What it returns for a record holds until the next call.
func (m *Matcher) values(field, record int) []value {
	if record >= 0 {
		m.bytes = m.ev.Append(m.bytes[:0], field, record)
		m.record = fill(m.record[:0], m.bytes)
		return m.record
	}
	if v, ok := m.fields[field]; ok {
		return v
	}
	var v []value
	if n := len(m.spare); n > 0 {
		v, m.spare = m.spare[n-1], m.spare[:n-1]
	}
	m.bytes = m.ev.Append(m.bytes[:0], field, -1)
	v = fill(v, m.bytes)
	m.fields[field] = v
	return v
}

func fill(v []value, b [][]byte) []value {
	for _, x := range b {
		v = append(v, value{raw: x})
	}
	return v
}

func (m *Matcher) item(it *item, record int) bool {
	vs := m.values(it.field.ID, record)
	if it.exists != 0 {
		return (len(vs) > 0) == (it.exists > 0)
	}
	ok := m.tests(it, vs, record)
	if it.not {
		return len(vs) > 0 && !ok
	}
	return ok
}

func (m *Matcher) tests(it *item, vs []value, record int) bool {
	for i := range it.tests {
		ok := m.test(&it.tests[i], vs, record)
		if ok != it.all {
			return ok
		}
	}
	return it.all
}

// test reports whether one of the values is what the rule says.
func (m *Matcher) test(t *test, vs []value, record int) bool {
	switch t.kind {
	case isNull:
		return len(vs) == 0
	case isRef:
		return m.reference(t, vs, record)
	}
	for i := range vs {
		if t.match(&vs[i]) {
			return true
		}
	}
	return false
}

func (t *test) match(v *value) bool {
	switch t.kind {
	case isText:
		return t.text.match(v)
	case isRegexp:
		return t.re.Match(v.raw)
	case isPrefix:
		a, err := netip.ParseAddr(string(v.raw))
		return err == nil && t.prefix.Contains(a.Unmap())
	}
	n, err := strconv.ParseInt(string(v.raw), 10, 64)
	if err != nil {
		return false
	}
	switch t.kind {
	case isLess:
		return n < t.number
	case isLessOrEqual:
		return n <= t.number
	case isGreater:
		return n > t.number
	case isGreaterOrEqual:
		return n >= t.number
	}
	return false
}

// reference compares two fields of the event.
func (m *Matcher) reference(t *test, vs []value, record int) bool {
	// values overwrites what it returned for a record before.
	mine := vs
	if record >= 0 {
		mine = append([]value(nil), vs...)
	}
	for _, other := range m.values(t.ref.ID, record) {
		for i := range mine {
			a, b := mine[i].raw, other.raw
			if !t.mods.cased {
				a, b = mine[i].lowered(), other.lowered()
			}
			if t.mods.compare(a, b) {
				return true
			}
		}
	}
	return false
}

// compare holds a against b as contains, startswith and endswith say.
func (m *modifiers) compare(a, b []byte) bool {
	switch {
	case m.wrapStart && m.wrapEnd:
		return bytes.Contains(a, b)
	case m.wrapStart:
		return bytes.HasSuffix(a, b)
	case m.wrapEnd:
		return bytes.HasPrefix(a, b)
	}
	return bytes.Equal(a, b)
}
