package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
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
