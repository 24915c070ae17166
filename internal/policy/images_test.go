package policy

import (
	"strings"
	"testing"
)

func TestImages(t *testing.T) {
	parse := func(line string) (*Policy, error) {
		return Parse([]byte("apiVersion: touchstone.dev/v1alpha1\nkind: TrustPolicy\nmetadata: {name: a}\nspec: {runtime: {images: {" + line + "}}}\n"))
	}
	if p, err := parse(""); err != nil || p.Spec.Runtime.Images.Workers != "none" {
		t.Errorf("without a word: got %+v, %v, want that no worker's scan counts", p, err)
	}
	if _, err := parse("workers: trusted, content: [" + strings.Repeat("ab", 32) + "], maxAge: 48h, revoke: 72h"); err != nil {
		t.Error(err)
	}
	for line, want := range map[string]string{
		"workers: all": "runtime.images.workers", "content: [ab]": "runtime.images.content", "tailorings: [" + strings.Repeat("AB", 32) + "]": "runtime.images.tailorings",
		"maxAge: -1h": "runtime.images: maxAge", "revoke: -1h": "runtime.images: maxAge",
	} {
		if _, err := parse(line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want something about %s", line, err, want)
		}
	}
}
