package sigma

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

const correlations = `
title: a
name: a
logsource: {product: linux}
detection: {s: {key: a}, condition: s}
---
title: b
name: b
logsource: {product: linux}
detection: {s: {key: b}, condition: s}
---
title: count
name: count
correlation: {type: event_count, rules: [a], group-by: [user], timespan: 10s, condition: {gte: 3}}
---
title: values
name: values
correlation: {type: value_count, rules: [a], group-by: [user], timespan: 10s, condition: {gt: 1, field: port}}
---
title: both
name: both
correlation:
  type: temporal
  rules: [a, b]
  group-by: [who]
  timespan: 10s
  aliases: {who: {a: user, b: owner}}
---
title: chain
name: chain
correlation: {type: temporal_ordered, rules: [count, b], timespan: 30s}
`

func TestCorrelations(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []string // "second event"
		want []string // "second rule"
	}{
		{"three of one user", []string{"0 key=a;user=x", "1 key=a;user=y", "2 key=a;user=x", "9 key=a;user=x"}, []string{"9 count"}},
		{"too slow", []string{"0 key=a;user=x", "2 key=a;user=x", "11 key=a;user=x"}, nil},
		{"again only after as many", []string{"0 key=a", "0 key=a", "0 key=a", "0 key=a", "0 key=a"}, []string{"0 count"}},
		{"values", []string{"0 key=a;port=1", "1 key=a;port=1", "2 key=a;port=2"}, []string{"2 count", "2 values"}},
		{"old values do not count", []string{"0 key=a;port=1", "11 key=a;port=2", "12 key=a;port=2"}, nil},
		{"both in any order", []string{"0 key=b;owner=x", "5 key=a;user=x"}, []string{"5 both"}},
		{"both, another user", []string{"0 key=b;owner=x", "5 key=a;user=y"}, nil},
		{"both, too late", []string{"0 key=b;owner=x", "11 key=a;user=x"}, nil},
		{"chain of a correlation", []string{"0 key=a", "0 key=a", "0 key=a", "20 key=b"}, []string{"0 count", "20 chain"}},
		{"chain in the wrong order", []string{"0 key=b;owner=q", "1 key=a", "1 key=a", "1 key=a"}, []string{"1 count"}},
		{"a clock that goes back", []string{"100 key=a", "1 key=a", "2 key=a"}, []string{"2 count"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			schema := fieldsOf{}
			s := compileText(t, schema, correlations)
			corr := NewCorrelator(s, 0)
			var m Matcher
			var got []string
			for _, line := range c.in {
				var sec int64
				var text string
				if _, err := fmt.Sscanf(line, "%d %s", &sec, &text); err != nil {
					t.Fatal(err)
				}
				ev := records{schema, []string{text}}
				m.Match(s, ev, func(i int) {
					corr.Add(i, ev, time.Unix(sec, 0), func(i int) { got = append(got, fmt.Sprint(sec, " ", s.Rule(i).Name)) })
				})
			}
			slices.Sort(got)
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestCorrelatorIsBounded: a storm of groups costs the oldest ones, and is counted.
func TestCorrelatorIsBounded(t *testing.T) {
	schema := fieldsOf{}
	s := compileText(t, schema, correlations)
	c := NewCorrelator(s, 100)
	var m Matcher
	for i := range 10_000 {
		ev := records{schema, []string{fmt.Sprintf("key=a;user=%d;port=%d", i, i)}}
		m.Match(s, ev, func(r int) { c.Add(r, ev, time.Unix(0, 0), func(int) {}) })
	}
	if len(c.groups) > 100 || c.recent.Len() != len(c.groups) || c.kept > 100*keptPerGroup {
		t.Errorf("%d groups with %d kept, want at most 100 and %d", len(c.groups), c.kept, 100*keptPerGroup)
	}
	if c.Evicted() < 20_000 {
		t.Errorf("Evicted: got %d, want about 29900", c.Evicted())
	}
	sum := 0
	for e := c.recent.Front(); e != nil; e = e.Next() {
		sum += e.Value.(*group).size()
	}
	if sum != c.kept {
		t.Errorf("kept: got %d, the groups have %d", c.kept, sum)
	}
}

func TestSilentRules(t *testing.T) {
	s := compileText(t, fieldsOf{}, correlations)
	for name, want := range map[string]bool{"a": true, "b": true, "count": true, "values": false, "chain": false} {
		i, ok := s.Lookup(name)
		if !ok || s.Silent(i) != want {
			t.Errorf("Silent(%s): got %t, want %t", name, s.Silent(i), want)
		}
	}
}
