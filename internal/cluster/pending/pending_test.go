package pending

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/board"
	"touchstone.dev/touchstone/internal/cluster/class"
)

func TestText(t *testing.T) {
	now := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	node := func(name string, change func(*class.Node)) board.Entry {
		n := class.Node{Valid: true, Expires: now.Add(time.Minute), Levels: map[int32]string{1: "pass", 2: "pass", 3: "pass", 4: "pass", 5: "pass"}, Reasons: map[int32]string{}}
		change(&n)
		return board.Entry{Name: name, Class: n}
	}
	good := func(*class.Node) {}
	fails := func(reason string) func(*class.Node) {
		return func(n *class.Node) { n.Levels[5], n.Reasons[5] = "fail", reason }
	}
	var many []board.Entry
	for i := range 10 {
		many = append(many, node(fmt.Sprintf("n%d", i), fails(fmt.Sprintf("file %d", i))), node(fmt.Sprintf("m%d", i), fails(strings.Repeat("é", 500))))
	}
	tags := &v1alpha1.TrustClass{Spec: v1alpha1.TrustClassSpec{Tags: map[string]v1alpha1.TagValues{"site": {"moon"}}}}
	plain := &v1alpha1.TrustClass{}
	tags.Name, plain.Name = "moon", "regulated"
	for _, c := range []struct {
		name  string
		class *v1alpha1.TrustClass
		nodes []board.Entry
		want  string
	}{
		{"one meets it", plain, []board.Entry{node("w1", fails("x")), node("w2", good)}, ""},
		{"no nodes", plain, nil, "no node meets trust class regulated: there are no nodes"},
		{"a tag", tags, []board.Entry{node("w2", good), node("w1", good)}, "no node meets trust class moon. w1, w2: tag site is not proven, want moon"},
		{
			"a level, and no result", plain, []board.Entry{node("w1", fails("unknown file /x")), node("w2", func(n *class.Node) { n.Valid, n.Why = false, "silent" })},
			"no node meets trust class regulated. w1: level 5 is fail (unknown file /x); w2: silent",
		},
	} {
		if got := Text(c.class, c.nodes, now); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	if got := Text(plain, many, now); len(got) > 1024 || !strings.Contains(got, "and 6 more") || !strings.Contains(got, "other reasons") {
		t.Errorf("many nodes: got %d bytes %q, want at most 1024 that count the rest", len(got), got)
	}
}
