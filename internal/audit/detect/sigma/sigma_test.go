package sigma

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// fieldsOf is a schema in which every field exists but "Unknown"; "type" is the record type, "key" and "type" have gates.
type fieldsOf map[string]int

func (f fieldsOf) Source(src LogSource) (map[string]any, error) {
	switch src.Product {
	case "linux":
		if src.Category == "process_creation" {
			return map[string]any{"type": "EXECVE"}, nil
		}
		return nil, nil
	}
	return nil, fmt.Errorf("there is no log source %q", src.Product)
}

func (f fieldsOf) Field(_ LogSource, name string) (Field, error) {
	if name == "Unknown" {
		return Field{}, errors.New("there is no field Unknown")
	}
	if _, ok := f[name]; !ok {
		f[name] = len(f) + 1
	}
	out := Field{ID: f[name], Type: name == "type", Keyword: name == ""}
	switch name {
	case "key":
		out.Gate = 1
		out.Check = func(v string) error {
			if v == "impossible" {
				return errors.New("no event has this key")
			}
			return nil
		}
	case "type":
		out.Gate = 2
	}
	return out, nil
}

// records is an event: a list of records, each a line of field=value separated by ';'.
type records struct {
	schema fieldsOf
	lines  []string
}

func (r records) Records() int { return len(r.lines) }

func (r records) Append(dst [][]byte, field, record int) [][]byte {
	for i, line := range r.lines {
		if record >= 0 && i != record {
			continue
		}
		if field == r.schema[""] {
			dst = append(dst, []byte(line))
			continue
		}
		for part := range strings.SplitSeq(line, ";") {
			if name, v, ok := strings.Cut(part, "="); ok && r.schema[name] == field {
				dst = append(dst, []byte(v))
			}
		}
	}
	return dst
}

func (r records) Tokens(dst []Token) []Token {
	for _, name := range []string{"key", "type"} {
		if id, ok := r.schema[name]; ok {
			for _, v := range r.Append(nil, id, -1) {
				dst = append(dst, TokenOf(id, v))
			}
		}
	}
	return dst
}

// ruleOf makes a rule of a detection section.
func ruleOf(detection string) string {
	return "title: t\nname: r\nlogsource: {product: linux}\ndetection:\n  " + strings.ReplaceAll(strings.TrimSpace(detection), "\n", "\n  ") + "\n"
}

func compileText(t *testing.T, schema fieldsOf, text string) *Set {
	t.Helper()
	docs, err := Parse("test.yml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Compile(docs, schema, map[string][]string{"Admins": {"root", "adm*"}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		name, detection string
		yes, no         []string // events; records are separated by " / "
	}{
		{"text, any case", "s: {a: Foo}\ncondition: s", []string{"a=foo", "a=FOO", "b=1;a=fOO"}, []string{"a=foo2", "b=foo", "a=xfoo"}},
		{"number", "s: {a: 42}\ncondition: s", []string{"a=42"}, []string{"a=420", "a=4"}},
		{"list is or", "s: {a: [x, w]}\ncondition: s", []string{"a=x", "a=w"}, []string{"a=z"}},
		{"map is and", "s: {a: x, b: yes}\ncondition: s", []string{"a=x;b=yes", "a=x / b=true"}, []string{"a=x", "b=y;a=z"}},
		{"maps of a list are or", "s: [{a: x}, {b: w}]\ncondition: s", []string{"a=x", "b=w"}, []string{"a=y"}},
		{"star and question", "s: {a: 'v?.*e'}\ncondition: s", []string{"a=v1.exe", "a=vü.e"}, []string{"a=v.exe", "a=v12.exe", "a=v1.exec"}},
		{"escaped star", `s: {a: 'x\*'}` + "\ncondition: s", []string{"a=x*"}, []string{"a=xy", `a=x\*`, `a=x\`}},
		{"backslash before a wildcard", `s: {a: 'x\\*'}` + "\ncondition: s", []string{`a=x\`, `a=x\yz`}, []string{"a=x*", "a=xy"}},
		{"plain backslash", `s: {a: 'x\y\\z'}` + "\ncondition: s", []string{`a=x\y\z`}, []string{`a=x\y\\z`}},
		{"contains", "s: {a|contains: BC}\ncondition: s", []string{"a=abcd", "a=bc"}, []string{"a=bd"}},
		{"contains with a wildcard", "s: {a|contains: 'b*d'}\ncondition: s", []string{"a=abxxdz"}, []string{"a=dxb"}},
		{"startswith", "s: {a|startswith: ab}\ncondition: s", []string{"a=abc"}, []string{"a=cab"}},
		{"endswith", "s: {a|endswith: [bc, x]}\ncondition: s", []string{"a=abc", "a=x"}, []string{"a=bcd"}},
		{"contains all", "s: {a|contains|all: [b, d]}\ncondition: s", []string{"a=abcd", "a=db"}, []string{"a=b", "a=d"}},
		{"re", "s: {a|re: '^x[0-9]{2,}$'}\ncondition: s", []string{"a=x12", "a=x123"}, []string{"a=x1", "a=X12"}},
		{"re without case", "s: {a|re|i: '^x.$'}\ncondition: s", []string{"a=X1"}, []string{"a=y1"}},
		{"cased", "s: {a|cased: Foo}\ncondition: s", []string{"a=Foo"}, []string{"a=foo"}},
		{"cidr", "s: {a|cidr: [10.0.0.0/8, 'fd00::/8']}\ncondition: s", []string{"a=10.1.2.3", "a=fd00::1", "a=::ffff:10.0.0.1"}, []string{"a=11.0.0.1", "a=x"}},
		{"lt", "s: {a|lt: 10}\ncondition: s", []string{"a=9", "a=-1"}, []string{"a=10", "a=x", "b=1"}},
		{"lte", "s: {a|lte: 10}\ncondition: s", []string{"a=10"}, []string{"a=11"}},
		{"gt and lt in one map", "s: {a|gt: 10, a|lt: 20}\ncondition: s", []string{"a=15"}, []string{"a=10", "a=20"}},
		{"gte", "s: {a|gte: 10}\ncondition: s", []string{"a=10"}, []string{"a=9"}},
		{"neq", "s: {a|neq: x}\ncondition: s", []string{"a=y"}, []string{"a=x", "b=y"}},
		{"exists", "s: {a|exists: true, b|exists: false}\ncondition: s", []string{"a=x", "a="}, []string{"b=x", "a=x;b=x"}},
		{"null", "s: {a: null}\ncondition: s", []string{"b=x"}, []string{"a=x", "a="}},
		{"empty", "s: {a: ''}\ncondition: s", []string{"a="}, []string{"a=x", "b=x"}},
		{"fieldref", "s: {a|fieldref: b}\ncondition: s", []string{"a=X;b=x"}, []string{"a=x;b=y", "a=x"}},
		{"fieldref and endswith", "s: {a|fieldref|endswith: b}\ncondition: s", []string{"a=/bin/sh;b=sh"}, []string{"a=sh;b=/bin/sh"}},
		{"fieldref neq", "s: {a|fieldref|neq: b}\ncondition: s", []string{"a=x;b=y"}, []string{"a=x;b=x"}},
		{"base64", "s: {a|base64|contains: foo}\ncondition: s", []string{"a=xZm9v="}, []string{"a=foo"}},
		{"base64offset", "s: {a|base64offset|contains: 'http://'}\ncondition: s",
			[]string{"a=aHR0cDovL3g=", "a=eGh0dHA6Ly94", "a=eHhodHRwOi8veA=="}, []string{"a=aHR0cHM6Ly94"}},
		{"wide and base64offset", "s: {a|wide|base64offset|contains: ping}\ncondition: s", []string{"a=cABpAG4AZwA="}, []string{"a=cGluZw=="}},
		{"windash", "s: {a|windash|contains: ' -c'}\ncondition: s", []string{"a=x -c", "a=x /c", "a=x –c"}, []string{"a=x c"}},
		{"expand", "s: {a|expand: '%Admins%'}\ncondition: s", []string{"a=root", "a=admin"}, []string{"a=x", "a=%Admins%"}},
		{"keywords", "k: [evil, 'b*d']\ncondition: k", []string{"a=xEVILx", "a=1;c=bad"}, []string{"a=good"}},
		{"keywords all", "k: {'|all': [evil, more]}\ncondition: k", []string{"a=evil;b=more"}, []string{"a=evil"}},
		{"not", "s: {a: x}\nf: {b: w}\ncondition: s and not f", []string{"a=x", "a=x;b=z"}, []string{"a=x;b=w", "c=1"}},
		{"or binds less than and", "s1: {a: x}\ns2: {b: x}\ns3: {c: x}\ncondition: s1 or s2 and s3", []string{"a=x", "b=x;c=x"}, []string{"b=x", "c=x"}},
		{"parentheses", "s1: {a: x}\ns2: {b: x}\ns3: {c: x}\ncondition: (s1 or s2) and s3", []string{"a=x;c=x"}, []string{"a=x"}},
		{"not binds most", "s1: {a: x}\ns2: {b: x}\ncondition: not s1 and s2", []string{"b=x"}, []string{"a=x;b=x", "c=1"}},
		{"1 of", "s1: {a: x}\ns2: {b: x}\nf1: {c: x}\ncondition: 1 of s* and not 1 of f*", []string{"a=x", "b=x"}, []string{"a=x;c=x", "c=y"}},
		{"all of", "s_a: {a: x}\ns_b: {b: x}\ncondition: all of s_*", []string{"a=x;b=x"}, []string{"a=x", "b=x"}},
		{"of them leaves underscores out", "a1: {a: x}\n_b: {b: x}\ncondition: all of them or (_b and a1)", []string{"a=x"}, []string{"b=x"}},
		{"list of conditions", "s1: {a: x}\ns2: {b: x}\ncondition: [s1, s2]", []string{"a=x", "b=x"}, []string{"c=x"}},
		{"a type binds fields to one record", "s: {type: PATH, name: /x, nametype: CREATE}\ncondition: s",
			[]string{"type=PATH;name=/x;nametype=CREATE / type=CWD", "type=CWD / type=PATH;name=/x;nametype=CREATE"},
			[]string{"type=PATH;name=/x;nametype=NORMAL / type=PATH;name=/y;nametype=CREATE", "type=CWD;name=/x;nametype=CREATE"}},
		{"fieldref in one record", "s: {type: P, a|fieldref: b}\ncondition: s", []string{"type=P;a=1;b=1"}, []string{"type=P;a=1 / type=P;b=1"}},
		{"gate on a key", "s: {key: [K1, k2], a: x}\ncondition: s", []string{"key=k1;a=x", "key=q;key=k2;a=x"}, []string{"key=k3;a=x", "a=x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			schema := fieldsOf{}
			s := compileText(t, schema, ruleOf(c.detection))
			var m Matcher
			for want, events := range map[bool][]string{true: c.yes, false: c.no} {
				for _, e := range events {
					hits := 0
					m.Match(s, records{schema, strings.Split(e, " / ")}, func(int) { hits++ })
					if (hits == 1) != want || hits > 1 {
						t.Errorf("Match(%q): got %d hits, want a match: %t", e, hits, want)
					}
				}
			}
		})
	}
}

func TestRefused(t *testing.T) {
	rule := func(f string) string { return ruleOf("s: {" + f + "}\ncondition: s") }
	for name, c := range map[string]struct{ text, want string }{
		"unknown modifier":      {rule("a|sounds: x"), `modifier "sounds" is not known`},
		"time modifier":         {rule("a|hour: 3"), `modifier "hour" is not known`},
		"unknown field":         {rule("Unknown: x"), "no field Unknown"},
		"modifiers that clash":  {rule("a|re|contains: x"), "exclude each other"},
		"flag without re":       {rule("a|i: x"), "only behind re"},
		"look-around":           {rule("a|re: '(?=x)'"), "RE2"},
		"all with one value":    {rule("a|contains|all: x"), "more than one value"},
		"exists with text":      {rule("a|exists: x"), "true or false"},
		"no network":            {rule("a|cidr: 10.0.0.0/40"), "no network"},
		"no number":             {rule("a|lt: x"), "no whole number"},
		"placeholder":           {rule("a|expand: '%Nobody%'"), "has no values"},
		"wildcard in base64":    {rule("a|base64: 'x*'"), "wildcards"},
		"impossible value":      {rule("key: impossible"), "no event has this key"},
		"empty map":             {ruleOf("s: {}\ncondition: s"), "empty map"},
		"empty list":            {rule("a: []"), "no values"},
		"nested":                {rule("a: {b: c}"), "want text or numbers"},
		"no condition":          {ruleOf("s: {a: x}"), "no condition"},
		"unknown selection":     {ruleOf("s: {a: x}\ncondition: s and q"), `"q" is no selection`},
		"unused selection":      {ruleOf("s: {a: x}\nq: {a: y}\ncondition: s"), "no condition uses selection q"},
		"open parenthesis":      {ruleOf("s: {a: x}\ncondition: (s"), "not closed"},
		"closing parenthesis":   {ruleOf("s: {a: x}\ncondition: s)"), `unexpected ")"`},
		"old aggregation":       {ruleOf("s: {a: x}\ncondition: s | count() > 5"), `unexpected "|"`},
		"of nothing":            {ruleOf("s: {a: x}\ncondition: 1 of q*"), "no selection is named"},
		"depth":                 {ruleOf("s: {a: x}\ncondition: " + strings.Repeat("(", 40) + "s" + strings.Repeat(")", 40)), "nested deeper"},
		"words":                 {ruleOf("s: {a: x}\ncondition: s" + strings.Repeat(" and s", 200)), "more than 256 words"},
		"values":                {rule("a: [" + strings.Repeat("x,", 2001) + "x]"), "more than 2000 values"},
		"log source":            {strings.Replace(rule("a: x"), "linux", "windows", 1), "no log source"},
		"same key twice":        {rule("a: x, a: y"), "already set"},
		"level":                 {"level: bad\n" + rule("a: x"), `level "bad"`},
		"neither":               {"title: t\nname: r\n", "either a detection or a correlation"},
		"no name":               {strings.Replace(rule("a: x"), "name: r\n", "", 1), "id (a UUID) or a name"},
		"id":                    {"id: x\n" + rule("a: x"), "no UUID"},
		"too large":             {"description: " + strings.Repeat("x", MaxDocument) + "\n" + rule("a: x"), "more than"},
		"the same name twice":   {rule("a: x") + "---\n" + rule("a: x"), "is the name of a rule"},
		"correlation of none":   {"title: t\nname: c\ncorrelation: {type: event_count, rules: [q], timespan: 1m, condition: {gte: 2}}\n", `no rule "q"`},
		"correlation of itself": {"title: t\nname: c\ncorrelation: {type: event_count, rules: [c], timespan: 1m, condition: {gte: 2}}\n", "wait for each other"},
		"lt cannot be told":     {rule("a: x") + "---\ntitle: t\nname: c\ncorrelation: {type: event_count, rules: [r], timespan: 1m, condition: {lt: 2}}\n", "while time goes on"},
		"timespan":              {rule("a: x") + "---\ntitle: t\nname: c\ncorrelation: {type: event_count, rules: [r], timespan: 1w, condition: {gte: 2}}\n", "timespan"},
		"long timespan":         {rule("a: x") + "---\ntitle: t\nname: c\ncorrelation: {type: event_count, rules: [r], timespan: 9d, condition: {gte: 2}}\n", "at most 7d"},
		"no field to count":     {rule("a: x") + "---\ntitle: t\nname: c\ncorrelation: {type: value_count, rules: [r], timespan: 1d, condition: {gte: 2}}\n", "needs a field"},
	} {
		t.Run(name, func(t *testing.T) {
			docs, err := Parse("test.yml", []byte(c.text))
			if err == nil {
				_, err = Compile(docs, fieldsOf{}, nil)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
		})
	}
}
