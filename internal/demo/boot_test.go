package demo

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/reference"
)

// The demo's AIAS accepts the software TPMs of the demo, not those of the golden corpus.
func TestReferencesOfTheDemo(t *testing.T) {
	dir := t.TempDir()
	if err := writeReferences(dir); err != nil {
		t.Fatalf("writeReferences: %v", err)
	}
	set, err := reference.Load(dir)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	kinds := map[string]int{}
	for _, s := range set.Sources() {
		kinds[s.Kind]++
	}
	want := map[string]int{reference.KindCapture: 1, reference.KindFiles: 1, reference.KindPackage: 5}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Errorf("references of the demo by kind (-want +got):\n%s", diff)
	}
}
