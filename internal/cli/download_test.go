package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/protocol"
)

// What AIAS keeps arrives byte by byte, and a folder with the name of the node is no Evidence.
func TestDownload(t *testing.T) {
	doc, err := os.ReadFile(pack(t, "good"))
	if err != nil {
		t.Fatal(err)
	}
	bundle := operated(t, map[string]any{"GET /v1/nodes/w1/evidence/last": doc, "GET /v1/nodes/w1/evidence/first-bad": doc[:10]})
	t.Chdir(t.TempDir())
	if err := os.Mkdir("w1", 0o700); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := run(t, "evidence", "download", "w1", "-o", "w1.evidence", "--operator", bundle); code != 0 {
		t.Fatalf("evidence download: exit code %d, %q", code, errOut)
	}
	if got, err := os.ReadFile("w1.evidence"); err != nil || !bytes.Equal(got, doc) {
		t.Errorf("evidence download: got %d bytes, %v; want the %d that AIAS keeps", len(got), err, len(doc))
	}
	if code, out, _ := run(t, "evidence", "download", "w1", "--which", "first-bad", "--operator", bundle); code != 0 || out != string(doc[:10]) {
		t.Errorf("evidence download --which first-bad: got exit code %d and %d bytes, want 0 and 10", code, len(out))
	}
	code, _, errOut := run(t, "reference", "capture", "w1", "--references", filepath.Join(t.TempDir(), "refs"), "--name", "w1", "--operator", bundle)
	if code != 0 {
		t.Errorf("reference capture beside a folder of that name: exit code %d, %q", code, errOut)
	}
}

func TestWhyOfSilence(t *testing.T) {
	verdict := appraisal.Verdict{Trusted: true, Levels: []appraisal.Level{{Level: 5, Name: "runtime", Status: appraisal.Pass}}}
	const silent = "silent: the last evidence came at noon"
	report := map[string]any{
		"node":    protocol.Node{Name: "w1", Trust: protocol.Untrusted, Reason: silent},
		"verdict": verdict, "notes": []string{"the verdict below is the last one and has expired: " + silent, "software TPM"},
	}
	_, out, _ := run(t, "why", "w1", "--operator", operated(t, map[string]any{"GET /v1/nodes/w1/verdict": report}))
	if got := strings.Count(out, "silent"); got != 1 || !strings.Contains(out, "software TPM") {
		t.Errorf("why: got the reason %d times, want once, and the other note:\n%s", got, out)
	}
}
