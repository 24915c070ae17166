package main

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

	"filippo.io/age"

	"touchstone.dev/touchstone/internal/protocol"
)

// backedUp is an AIAS with image keys, and a backup of it that was made while it served.
type backedUp struct {
	config, data, file, identity string
	jwks                         []byte
	images                       int
}

func makeBackup(t *testing.T, images int) *backedUp {
	t.Helper()
	b := &backedUp{images: images}
	b.config, b.data = setUp(t)
	cmd, c := served(t, b.config, b.data)
	ctx := context.Background()
	var err error
	if b.jwks, err = c.JWKS(ctx); err != nil {
		t.Fatal(err)
	}
	for i := range images {
		if _, err := c.NewImageKey(ctx, protocol.ImageKeyRequest{Image: fmt.Sprint("image ", i), Conditions: json.RawMessage("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(b.data, "references", "note.txt"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	b.file, b.identity = filepath.Join(dir, "aias.age"), filepath.Join(dir, "identity")
	if err := os.WriteFile(b.identity, []byte(id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	killed := filepath.Join(b.data, ".backup-1") // what a backup leaves that was killed
	if err := os.Mkdir(killed, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(killed, time.Time{}, time.Now().Add(-2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1200 * time.Millisecond) // the ledger follows within a second
	if out, err := command(t, "backup", "--config", b.config, "--out", b.file, "--recipient", id.Recipient().String()).CombinedOutput(); err != nil {
		t.Fatalf("aias backup beside the service: %v\n%s", err, out)
	}
	if left, _ := filepath.Glob(filepath.Join(b.data, ".backup-*")); left != nil {
		t.Errorf("aias backup leaves %q", left)
	}
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
	return b
}

// restored checks that a data folder serves what was backed up.
func (b *backedUp) restored(t *testing.T, config, data string) {
	t.Helper()
	_, c := served(t, config, data)
	ctx := context.Background()
	if jwks, err := c.JWKS(ctx); err != nil || !bytes.Equal(jwks, b.jwks) {
		t.Errorf("JWKS() after a restore: got %s, %v; want %s", jwks, err, b.jwks)
	}
	if keys, err := c.ImageKeys(ctx); err != nil || len(keys) != b.images {
		t.Errorf("ImageKeys() after a restore: got %d, %v; want %d", len(keys), err, b.images)
	}
	// A rotation opens every secret.
	if r, err := c.RotateKeys(ctx); err != nil || r.Resealed < b.images+7 {
		t.Errorf("RotateKeys() after a restore: got %+v, %v", r, err)
	}
	if note, err := os.ReadFile(filepath.Join(data, "references", "note.txt")); err != nil || string(note) != "kept" {
		t.Errorf("references after a restore: got %q, %v", note, err)
	}
	if acts, err := c.Acts(ctx, 10); err != nil || len(acts) < 2 || acts[1].Act != "restore" {
		t.Errorf("acts after a restore: got %+v, %v; want the restore", acts, err)
	}
}

func TestBackupAndRestore(t *testing.T) {
	b := makeBackup(t, 40)
	config, data := setUp(t)
	if out, err := command(t, "restore", b.file, "--config", config, "--identity", b.identity, "--verify").CombinedOutput(); err != nil || !strings.Contains(string(out), "is whole") {
		t.Errorf("aias restore --verify: got %q, %v", out, err)
	}
	if _, err := os.Stat(data); !os.IsNotExist(err) {
		t.Errorf("aias restore --verify made the data folder: %v", err)
	}
	if out, err := command(t, "restore", b.file, "--config", config, "--identity", b.identity).CombinedOutput(); err != nil {
		t.Fatalf("aias restore: %v\n%s", err, out)
	}
	for _, name := range []string{"restoring", ".restore"} {
		if _, err := os.Stat(filepath.Join(data, name)); !os.IsNotExist(err) {
			t.Errorf("aias restore leaves %s: %v", name, err)
		}
	}
	b.restored(t, config, data)
	if out, err := command(t, "restore", b.file, "--config", config, "--identity", b.identity).CombinedOutput(); err == nil {
		t.Errorf("aias restore over an AIAS: got %q, want a refusal", out)
	}
}

// TestRestoreElsewhere: the backup of a machine with a key file, by passphrase, onto one that keeps its key behind another passphrase.
func TestRestoreElsewhere(t *testing.T) {
	b := makeBackup(t, 3)
	pass := filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(pass, []byte("correct horse battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := command(t, "backup", "--config", b.config, "--out", b.file, "--passphrase-file", pass).CombinedOutput(); err != nil {
		t.Fatalf("aias backup: %v\n%s", err, out)
	}
	config, data := setUp(t)
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, append(text, "keys: {passphraseFile: "+pass+"}\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := command(t, "restore", b.file, "--config", config, "--passphrase-file", pass).CombinedOutput(); err != nil {
		t.Fatalf("aias restore: %v\n%s", err, out)
	}
	b.restored(t, config, data)
	if l := keysOf(t, config); l.Keys[0].Kind != "passphrase" {
		t.Errorf("after a restore: got keys %+v, want the passphrase's", l)
	}
	if _, err := os.Stat(filepath.Join(data, "aias.key")); !os.IsNotExist(err) {
		t.Errorf("after a restore: there is a key file: %v", err)
	}
}

// TestRestoreRefuses: a backup that is not whole, or not for us, leaves nothing behind.
func TestRestoreRefuses(t *testing.T) {
	b := makeBackup(t, 1)
	whole, err := os.ReadFile(b.file)
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	stranger := filepath.Join(t.TempDir(), "stranger")
	if err := os.WriteFile(stranger, []byte(other.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	flip := func(at int) []byte {
		bad := bytes.Clone(whole)
		bad[at] ^= 1
		return bad
	}
	for name, c := range map[string]struct {
		data     []byte
		identity string
	}{
		"a stranger's":     {whole, stranger},
		"empty":            {nil, b.identity},
		"no backup":        {[]byte("hello"), b.identity},
		"head changed":     {flip(30), b.identity},
		"middle changed":   {flip(len(whole) / 2), b.identity},
		"end changed":      {flip(len(whole) - 1), b.identity},
		"a byte short":     {whole[:len(whole)-1], b.identity},
		"half":             {whole[:len(whole)/2], b.identity},
		"a chunk short":    {whole[:len(whole)-len(whole)%(64<<10+16)], b.identity},
		"something behind": {append(bytes.Clone(whole), 0), b.identity},
	} {
		file := filepath.Join(t.TempDir(), "bad.age")
		if err := os.WriteFile(file, c.data, 0o600); err != nil {
			t.Fatal(err)
		}
		config, data := setUp(t)
		out, err := command(t, "restore", file, "--config", config, "--identity", c.identity).CombinedOutput()
		if err == nil {
			t.Errorf("%s: aias restore: got %q, want a refusal", name, out)
		}
		_ = filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && !strings.HasSuffix(path, ".lock") {
				t.Errorf("%s: aias restore left %s", name, path)
			}
			return nil
		})
	}
}

// TestRestoreKilled: kill -9 at any moment of a restore leaves nothing that serves, and the next goes through.
func TestRestoreKilled(t *testing.T) {
	b := makeBackup(t, 5)
	run := func(config string) (done chan error, kill func()) {
		cmd := command(t, "restore", b.file, "--config", config, "--identity", b.identity)
		done = make(chan error, 1)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { done <- cmd.Wait() }()
		return done, func() { _ = cmd.Process.Kill() }
	}
	config, _ := setUp(t)
	start := time.Now()
	done, _ := run(config)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	took, halves := time.Since(start), 0
	config, data := setUp(t)
	for i := range 16 {
		done, kill := run(config)
		time.AfterFunc(took*time.Duration(i)/18, kill)
		if <-done == nil {
			break // it was faster than the first
		}
		if _, err := os.Stat(filepath.Join(data, "restoring")); err == nil {
			halves++
			if out, err := command(t, "init", "--config", config).CombinedOutput(); err == nil || !strings.Contains(string(out), "run aias restore again") {
				if _, err := os.Stat(filepath.Join(data, "aias.db")); os.IsNotExist(err) {
					t.Fatalf("aias init after a restore that was killed: got %q, want a refusal", out)
				}
			}
		}
		if _, err := os.Stat(filepath.Join(data, "aias.db")); err == nil {
			break // killed after its end
		}
	}
	if halves == 0 {
		t.Error("no restore was killed half-way: the test has shown nothing")
	}
	if _, err := os.Stat(filepath.Join(data, "aias.db")); err != nil {
		if out, err := command(t, "restore", b.file, "--config", config, "--identity", b.identity).CombinedOutput(); err != nil {
			t.Fatalf("aias restore after kill -9: %v\n%s", err, out)
		}
	}
	b.restored(t, config, data)
}
