package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/swtpm"
	"touchstone.dev/touchstone/internal/tpm"
)

// TestCollect makes Evidence with a real software TPM: it needs swtpm (`make test` installs it).
func TestCollect(t *testing.T) {
	dir, err := os.MkdirTemp("", "ts") // short: it holds a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p, err := swtpm.Start(context.Background(), swtpm.Options{Dir: dir, Banks: []tpm.Alg{tpm.AlgSHA1, tpm.AlgSHA256, tpm.AlgSHA384}})
	if err != nil {
		t.Fatalf("swtpm: %v", err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	out := filepath.Join(t.TempDir(), "worker.evidence")
	code, _, errOut := run(t, "evidence", "collect", "--tpm", p.Address(), "--host-root", t.TempDir(), "--nonce", "0102", "--node", "w", "--out", out)
	if code != 0 {
		t.Fatalf("evidence collect: exit code %d: %s", code, errOut)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := evidence.Decode(data)
	if err != nil {
		t.Fatalf("Decode: %v", err)
	}
	if doc.Node != "w" || string(doc.Nonce) != "\x01\x02" || len(doc.Quotes) != 2 {
		t.Errorf("evidence collect: node %q, nonce %x, %d quotes, want w, 0102 and two: sha1 is left out", doc.Node, doc.Nonce, len(doc.Quotes))
	}
	// No log and no references: authentic, and not trusted.
	code, screen, errOut := run(t, "appraise", out, "--policy", bootPolicy, "--references", references)
	if code != 1 || !strings.Contains(screen, "w is not trusted") {
		t.Errorf("appraise: exit code %d, %s%s", code, screen, errOut)
	}
	if code, _, errOut := run(t, "evidence", "collect", "--tpm", p.Address(), "--bank", "sha512", "--out", out); code != 2 || errOut == "" {
		t.Errorf("evidence collect of a bank that is not there: exit code %d, %q", code, errOut)
	}
}
