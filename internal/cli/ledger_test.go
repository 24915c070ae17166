package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/ledger"
	"touchstone.dev/touchstone/internal/protocol"
)

// writtenLedger returns the folder of a ledger with n entries, its public key, and a function that adds more.
func writtenLedger(t *testing.T, n int) (dir, public string, more func(int)) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "ledger")
	secret, public, err := ledger.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	more = func(n int) {
		t.Helper()
		ctx := context.Background()
		l, err := ledger.Open(ctx, dir, secret, public)
		if err != nil {
			t.Fatal(err)
		}
		var entries []ledger.Entry
		for i := range n {
			e := ledger.Entry{Time: time.Unix(int64(i), 0), Kind: ledger.Verdict, Node: fmt.Sprint("w", i%5), Decision: "trusted"}
			if i%100 == 7 {
				e.Kind, e.Decision, e.Reason, e.Subject = ledger.KeyRefused, "refused", "level 4 (kernel) \x1b[31mfails", "image-key:abc"
			}
			entries = append(entries, e)
		}
		if err := l.AppendAll(ctx, entries); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	more(n)
	return dir, public, more
}

// servedLedger answers as AIAS does with the files of a ledger.
func servedLedger(t *testing.T, dir, public string) string {
	t.Helper()
	answers := map[string]any{
		"GET " + protocol.PathLedgerKey:   []byte(public + "\n"),
		"GET " + protocol.PathKeys:        protocol.KeyList{Keys: []protocol.KeyInfo{{ID: "file:ab", Kind: "file", Current: true, Secrets: 7}}, Moving: true},
		"POST " + protocol.PathKeysRotate: protocol.KeyRotation{From: []string{"file:ab"}, To: "tpm:cd", Resealed: 7},
	}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		answers["GET /v1/ledger/"+name] = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return operated(t, answers)
}

func TestLedgerCommands(t *testing.T) {
	dir, public, more := writtenLedger(t, 600)
	bundle := servedLedger(t, dir, public)
	temp := t.TempDir()
	key, kept, proof := filepath.Join(temp, "ledger.pub"), filepath.Join(temp, "checkpoint"), filepath.Join(temp, "proof")
	if err := os.WriteFile(key, []byte(public+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	offline, online := []string{"--dir", dir, "--key", key}, []string{"--operator", bundle}
	expect := func(code int, want string, args ...string) string {
		t.Helper()
		got, out, errOut := run(t, args...)
		if got != code || !strings.Contains(out+errOut, want) || strings.Contains(out, "\x1b") {
			t.Errorf("touchstone %s: got exit code %d, %q, %q; want %d and %q", strings.Join(args, " "), got, out, errOut, code, want)
		}
		return out
	}
	for _, where := range [][]string{offline, online} {
		with := func(args ...string) []string { return append(append([]string{"ledger"}, args...), where...) }
		expect(0, "entries: 600, each as the signed checkpoint commits to", with("verify")...)
		expect(0, "507", with("show", "--kind", "key-refused", "--last", "2")...)
		expect(0, "no such entry", with("show", "--node", "w9")...)
		expect(2, "--last", with("show", "--last", "0")...)
		expect(1, "there is no entry 600", with("prove", "600")...)
		expect(2, "no number", with("prove", "x")...)
		if err := os.WriteFile(proof, []byte(expect(0, `"index": 107`, with("prove", "107")...)), 0o600); err != nil {
			t.Fatal(err)
		}
		expect(0, "this entry is in the ledger", "ledger", "verify", "--proof", proof, "--key", public)
	}
	var page []ledger.Numbered
	if err := json.Unmarshal([]byte(expect(0, "", "ledger", "show", "--last", "300", "-o", "json", "--dir", dir, "--key", key)), &page); err != nil {
		t.Fatal(err)
	}
	for i, e := range page {
		if e.Index != uint64(599-i) {
			t.Fatalf("ledger show: entry %d has number %d, want %d", i, e.Index, 599-i)
		}
	}
	if len(page) != 300 {
		t.Errorf("ledger show --last 300: got %d entries", len(page))
	}
	expect(2, "--key", "ledger", "verify", "--dir", dir)
	expect(2, "--key", "ledger", "verify", "--proof", proof)
	expect(2, "no ledger", "ledger", "verify", "--dir", temp, "--key", key)
	expect(0, "entries: 600", append([]string{"ledger", "verify", "--checkpoint", kept}, offline...)...)
	more(3)
	expect(0, "continue the 600 entries", append([]string{"ledger", "verify", "--checkpoint", kept}, offline...)...)
	expect(1, "tampered", append([]string{"ledger", "verify", "--checkpoint", kept}, online...)...) // that one has 600 still
	data, err := os.ReadFile(proof)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(proof, bytes.Replace(data, []byte("w2"), []byte("w3"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(1, "tampered", "ledger", "verify", "--proof", proof, "--key", key)
	bundleOfEntries := filepath.Join(dir, "tile", "entries", "000")
	data, err = os.ReadFile(bundleOfEntries)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(bundleOfEntries, data, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(1, "tampered", append([]string{"ledger", "verify"}, offline...)...)
}

func TestKeysCommands(t *testing.T) {
	dir, public, _ := writtenLedger(t, 1)
	bundle := servedLedger(t, dir, public)
	code, out, errOut := run(t, "keys", "list", "--operator", bundle)
	if code != 0 || !strings.Contains(out, "file:ab") || !strings.Contains(out, "current") || !strings.Contains(out, "moves there") {
		t.Errorf("touchstone keys list: got %d, %q, %q", code, out, errOut)
	}
	if code, out, errOut = run(t, "keys", "rotate", "--operator", bundle); code != 0 || !strings.Contains(out, "7 secrets are sealed under tpm:cd") {
		t.Errorf("touchstone keys rotate: got %d, %q, %q", code, out, errOut)
	}
}
