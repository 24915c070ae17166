package class

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"touchstone.dev/touchstone/api/v1alpha1"
)

// TestTaintValue: whatever levels a node and a class have, the class lives with the value of the node's taint exactly when the node meets it.
func TestTaintValue(t *testing.T) {
	words := []string{"pass", "warn", "fail", "unknown", ""}
	levelsOf := func(bits int) []int32 {
		return slices.DeleteFunc(slices.Clone(allLevels), func(l int32) bool { return bits&(1<<(l-1)) == 0 })
	}
	for failing := 1; failing < 32; failing++ {
		n := node(func(n *Node) {
			for i, l := range allLevels {
				n.Levels[l] = words[i%2]
			}
			for i, l := range levelsOf(failing) {
				n.Levels[l] = words[2+i%3]
			}
		})
		for asked := 1; asked < 32; asked++ {
			spec := v1alpha1.TrustClassSpec{Levels: levelsOf(asked)}
			meets := Meets(&spec, n, now).Meets
			if got := slices.Contains(Untrusted(&spec), TaintValue(n)); got != meets {
				t.Errorf("levels %v fail, class asks for %v: Untrusted() has %q: %v, want %v", levelsOf(failing), spec.Levels, TaintValue(n), got, meets)
			}
		}
	}
	for _, tt := range []struct {
		levels []int32
		want   string
	}{
		{nil, ""}, {[]int32{5, 4, 3, 2, 1}, ""}, {[]int32{4, 2, 1, 3}, "5"}, {[]int32{1, 2, 3}, "4 5 4-5"}, {[]int32{2, 3, 4, 5}, "1"},
	} {
		if got := strings.Join(Untrusted(&v1alpha1.TrustClassSpec{Levels: tt.levels}), " "); got != tt.want {
			t.Errorf("Untrusted(%v): got %q, want %q", tt.levels, got, tt.want)
		}
	}
	for name, n := range map[string]Node{"no result": {Levels: map[int32]string{1: "pass"}}, "nothing": {}} {
		if got := TaintValue(n); got != "" {
			t.Errorf("TaintValue(%s): got %q, want none", name, got)
		}
	}
	if got := TaintValue(Node{Valid: true}); got != "1-2-3-4-5" {
		t.Errorf("TaintValue of a result without levels: got %q, want all", got)
	}
	if got := fmt.Sprint(allLevels); got != "[1 2 3 4 5]" {
		t.Errorf("allLevels was changed: %s", got)
	}
}
