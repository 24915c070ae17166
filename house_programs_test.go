package touchstone_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// startsProgram finds programs of Kubernetes in tests: those that a control plane runs beside the API server, and those that tests ask for by name.
var startsProgram = regexp.MustCompile(`\.Run\(t, "(kube-[a-z-]+)"|kubetest\.Programs\(t, "([a-z-]+)"`)

// TestProgramsAreBuilt: scripts/test and scripts/race build each program of Kubernetes that tests start without a tag. A machine that has built it for
// something else does not show that it is missing.
func TestProgramsAreBuilt(t *testing.T) {
	h := theHouse(t)
	lib := h.texts["scripts/lib.sh"]
	_, list, ok := strings.Cut(lib, "\ntest_programs=(")
	if !ok {
		t.Fatal("scripts/lib.sh has no test_programs")
	}
	list, _, _ = strings.Cut(list, ")")
	built := strings.Fields(list)
	started := 0
	for name, text := range h.texts {
		if !strings.HasSuffix(name, "_test.go") || strings.HasPrefix(text, "//go:build ") {
			continue
		}
		for _, m := range startsProgram.FindAllStringSubmatch(text, -1) {
			started++
			if p := m[1] + m[2]; !slices.Contains(built, p) {
				t.Errorf("%s starts %s, which is not among test_programs of scripts/lib.sh", name, p)
			}
		}
	}
	if started == 0 {
		t.Error("no test starts a program: the pattern finds nothing")
	}
	for _, script := range []string{"scripts/test", "scripts/race"} {
		if !strings.Contains(h.texts[script], `use_kubernetes "${test_programs[@]}"`) {
			t.Errorf("%s does not build test_programs", script)
		}
	}
}
