package sigma

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func FuzzRule(f *testing.F) {
	files, err := filepath.Glob("../rules/*.yml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, "type=SYSCALL;key=a / type=PATH;name=/etc")
	}
	f.Add([]byte(correlations), "key=a;user=x")
	f.Add([]byte(ruleOf("s: {a|re: '^(x+)+$', b|contains|all: ['*?', y]}\nk: [z]\ncondition: 1 of them and not (s or k)")), "a=xxx;b=y")
	f.Fuzz(func(t *testing.T, text []byte, event string) {
		docs, err := Parse("f.yml", text)
		if err != nil {
			return
		}
		schema := fieldsOf{}
		s, err := Compile(docs, schema, nil)
		if err != nil {
			return
		}
		ev := records{schema, strings.Split(event, " / ")}
		var m Matcher
		c := NewCorrelator(s, 10)
		for i := range 3 {
			m.Match(s, ev, func(r int) { c.Add(r, ev, time.Unix(int64(i), 0), func(int) {}) })
		}
	})
}

// FuzzGate: the gate never hides a match.
func FuzzGate(f *testing.F) {
	f.Add("s: {key: [a, b], x: y}\nt: {type: Q}\ncondition: s or t", "key=A;x=y / type=q")
	f.Add("s: {key: K}\ncondition: not s", "key=k")
	f.Fuzz(func(t *testing.T, detection, event string) {
		docs, err := Parse("f.yml", []byte(ruleOf(detection)))
		if err != nil {
			return
		}
		schema := fieldsOf{}
		s, err := Compile(docs, schema, nil)
		if err != nil || len(s.rules) != 1 || s.rules[0].expr == nil || strings.ContainsFunc(event, func(r rune) bool { return r > 0x7f }) {
			return
		}
		ev := records{schema, strings.Split(event, " / ")}
		var m Matcher
		hit := false
		m.Match(s, ev, func(int) { hit = true })
		m.begin(s, ev)
		if all := m.eval(s.rules[0].expr); all != hit {
			t.Errorf("Match: got %t, the rule itself says %t", hit, all)
		}
	})
}
