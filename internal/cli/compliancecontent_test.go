package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/compliance/content"
)

// TestComplianceContent: what is written is what the digest is of.
func TestComplianceContent(t *testing.T) {
	var out, errs bytes.Buffer
	file := filepath.Join(t.TempDir(), "baseline.xml")
	app := &App{Out: &out, Err: &errs, Now: time.Now}
	if code := app.Run(t.Context(), []string{"touchstone", "compliance", "content", "-o", "json", "--write", file}); code != ExitOK {
		t.Fatalf("got %d, %s", code, errs.String())
	}
	var got baseline
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.SHA256 != content.Digest() || !slices.Contains(got.Profiles, content.Image) {
		t.Errorf("got %+v", got)
	}
	if b, err := os.ReadFile(file); err != nil || !bytes.Equal(b, content.Baseline()) {
		t.Errorf("%s: %d bytes, %v", file, len(b), err)
	}
}

// TestTailoringOfPolicyFile: an image is scanned by the tailoring of --policy, which `compliance tailoring` writes.
func TestTailoringOfPolicyFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	text := "apiVersion: touchstone.dev/v1alpha1\nkind: TrustPolicy\nmetadata: {name: x}\nspec: {runtime: {compliance: {profile: " + content.Image +
		", tailoring: {deselect: [{rule: xccdf_dev.touchstone_rule_no_telnet, reason: a museum}]}}}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	place := places(t, debian(t, "base-files", "telnet"))[1]
	if code, got, said := scanFor(t, "--policy", file, place); code != ExitOK {
		t.Errorf("telnet is deselected: got %d, %v %s", code, got["problems"], said)
	}
	if code, got, said := scanFor(t, "--policy", file, places(t, debian(t, "base-files", "nis"))[1]); code != ExitNotTrusted || !strings.Contains(fmt.Sprint(got["problems"]), "no_nis") {
		t.Errorf("nis is not: got %d, %v %s", code, got["problems"], said)
	}
	var out, errs bytes.Buffer
	app := &App{Out: &out, Err: &errs, Now: time.Now}
	if code := app.Run(t.Context(), []string{"touchstone", "compliance", "tailoring", file}); code != ExitOK || !strings.Contains(out.String(), "a museum") || !strings.Contains(errs.String(), "policy_profile_image") {
		t.Errorf("tailoring: got %d, %s %s", code, out.String(), errs.String())
	}
}
