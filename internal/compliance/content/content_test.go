package content_test

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/compliance/content"
	"touchstone.dev/touchstone/internal/compliance/xccdf"
)

var update = flag.Bool("update", false, "write docs/reference/baseline.md anew")

const reference = "../../../docs/reference/baseline.md"

// TestReference: the page for people says what the rules do, and with it which bytes this version is.
func TestReference(t *testing.T) {
	got := content.Reference()
	if *update {
		if err := os.WriteFile(reference, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what the rules say: go test ./internal/compliance/content -run TestReference -update", reference)
	}
}

func baseline(t *testing.T) *xccdf.Catalogue {
	t.Helper()
	c, err := xccdf.ReadCatalogue(bytes.NewReader(content.Baseline()))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestValid: OpenSCAP finds the data stream and its parts valid.
func TestValid(t *testing.T) {
	path := filepath.Join(t.TempDir(), "baseline-ds.xml")
	if err := os.WriteFile(path, content.Baseline(), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("oscap", "ds", "sds-validate", path).CombinedOutput(); err != nil {
		t.Fatalf("oscap ds sds-validate: %v\n%s", err, out)
	}
	out, _ := exec.Command("oscap", "xccdf", "validate", path).CombinedOutput() // its global part asks each rule for a CCE, which MITRE no longer gives out
	for _, part := range []string{"OVAL Definition component 'oval.xml': PASS", "XCCDF Checklist component 'scap_dev.touchstone_cref_xccdf': PASS"} {
		if !strings.Contains(string(out), part) {
			t.Errorf("oscap xccdf validate: no %q in\n%s", part, out)
		}
	}
}

// TestRulesExplainThemselves: each rule says what it is for, how to mend it, and has one check; packages are asked for by their names.
func TestRulesExplainThemselves(t *testing.T) {
	c := baseline(t)
	if !c.Has(content.Worker) || !c.Has(content.Image) || c.PackagePatterns || c.Version != content.Version {
		t.Errorf("catalogue: profiles %q, version %q, packages by pattern: %v", c.ProfileIDs(), c.Version, c.PackagePatterns)
	}
	used := map[string]bool{}
	for _, p := range c.Profiles {
		for _, s := range p.Selects {
			used[s.ID] = used[s.ID] || s.Selected
		}
	}
	seen := map[string]bool{}
	for _, r := range c.Rules {
		if r.Title == "" || r.Description == "" || r.Rationale == "" || r.Fix == "" || len(r.Checks) != 1 || r.Severity == xccdf.SeverityUnknown || seen[r.ID] || !used[r.ID] {
			t.Errorf("a rule that does not explain itself, is there twice, or in no profile: %+v", r)
		}
		seen[r.ID] = true
	}
	if references := bytes.Count(content.Baseline(), []byte("<reference href=")); references < len(c.Rules) {
		t.Errorf("%d references of %d rules", references, len(c.Rules))
	}
}
