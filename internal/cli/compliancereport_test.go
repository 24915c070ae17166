package cli

import (
	"bytes"
	"compress/gzip"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/compliance/content"
	"touchstone.dev/touchstone/internal/compliance/oscap"
	"touchstone.dev/touchstone/internal/protocol"
)

// TestComplianceReport: what oscap wrote is what the operator gets; what is no document, or none, is an error.
func TestComplianceReport(t *testing.T) {
	dir := t.TempDir()
	made := filepath.Join(dir, "made.html")
	root := filepath.Join(dir, "root")
	if err := os.MkdirAll(filepath.Join(root, "var/lib/dpkg"), 0o755); err != nil {
		t.Fatal(err)
	}
	status := "Package: base-files\nStatus: install ok installed\nMaintainer: x <x@example.org>\nArchitecture: amd64\nVersion: 1\nDescription: x\n\n"
	if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), []byte(status), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := (&oscap.Runner{}).Scan(context.Background(), oscap.Scan{Content: content.Name, Profile: content.Image, Root: root, Container: true, HTML: made}); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(want); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	bundle := operated(t, map[string]any{
		"GET /v1/nodes/w1/compliance/documents/html": packed.Bytes(),
		"GET /v1/nodes/w1/compliance/documents/arf":  []byte("no gzip"),
		"POST /v1/nodes/w1/compliance/scan":          protocol.ScanRequest{Node: "w1"},
		"GET /v1/nodes/w1/compliance":                protocol.NodeCompliance{Node: "w1"},
	})
	file := filepath.Join(dir, "got")
	run := func(args ...string) (int, string) {
		var out, errs bytes.Buffer
		app := &App{Out: &out, Err: &errs, Now: time.Now}
		code := app.Run(t.Context(), append([]string{"touchstone", "--operator", bundle, "compliance", "report"}, args...))
		return code, errs.String()
	}
	for _, args := range [][]string{{"w1", "--html", file}, {"w1", "--html", file, "--wait", "5s"}} {
		code, said := run(args...)
		if got, err := os.ReadFile(file); code != ExitOK || err != nil || !bytes.Equal(got, want) || !bytes.Contains(got, []byte("Touchstone baseline")) {
			t.Errorf("%q: got %d, %s, %d bytes, %v; want the report of %d bytes", args, code, said, len(got), err, len(want))
		}
	}
	for want, args := range map[string][]string{"cannot be opened": {"w1", "--arf", file}, "no such node": {"w2", "--arf", file}, "give --arf FILE": {"w1"}} {
		if code, said := run(args...); code == ExitOK || !strings.Contains(said, want) {
			t.Errorf("%q: got %d, %s; want %q", args, code, said, want)
		}
	}
}
