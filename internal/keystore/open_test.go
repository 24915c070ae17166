package keystore

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// stable is "secret", sealed for "place" under the key of 32 times 7.
const stable = "545353311566696c653a38313365316263626132343162373263003c02beec40d1cf7baaebae3dc5b52e9ac8b81e30d2f00dc34a37dcb89751a36eb1b1" +
	"45097ef60c8b090f4a3e7998590097d95a4f053538b7ed91fafe845f1ab71f96d1cc356127240d96163354dac5146a18fea183a821eee5b74bd705494a"

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// memory keeps records for a test; with err it fails to save.
type memory struct {
	data []byte
	err  error
}

func (m *memory) LoadKeys(context.Context) ([]byte, error) { return m.data, nil }

func (m *memory) SaveKeys(_ context.Context, b []byte) error {
	if m.err == nil {
		m.data = bytes.Clone(b)
	}
	return m.err
}

func writeFile(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustOpen(t testing.TB, c Config, m *memory) *Ring {
	t.Helper()
	r, err := Open(context.Background(), c, m)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// canOpen fails the test unless a ring that is opened now opens what was sealed.
func canOpen(t testing.TB, c Config, m *memory, sealed []byte) {
	t.Helper()
	if got, err := mustOpen(t, c, m).Unwrap(context.Background(), sealed, []byte("place")); err != nil || string(got) != "secret" {
		t.Errorf("Unwrap() after a start: got %q, %v; want the secret", got, err)
	}
}

// rotateThrough rotates and checks what holds at each step, for every kind of source.
func rotateThrough(t *testing.T, before, after Config) {
	t.Helper()
	ctx, m := context.Background(), &memory{}
	r := mustOpen(t, before, m)
	sealed := mustWrap(t, r, "secret", "place")
	canOpen(t, before, m, sealed)

	r = mustOpen(t, after, m)
	first := r.ID()
	canOpen(t, after, m, mustWrap(t, r, "secret", "place"))
	id, err := r.Rotate(ctx)
	if err != nil || id == first || r.ID() != id {
		t.Fatalf("Rotate(): got %q, %v; want another key than %q, and the ring to use it", id, err, first)
	}
	canOpen(t, after, m, sealed)
	moved, err := r.Rewrap(ctx, sealed, []byte("place"))
	if err != nil || moved == nil {
		t.Fatalf("Rewrap(): got %d bytes, %v", len(moved), err)
	}
	canOpen(t, after, m, moved)
	if keys := r.Keys(); len(keys) != 2 || keys[0].Current || !keys[1].Current || keys[0].Missing || keys[1].ID != id {
		t.Errorf("Keys() in the middle of a rotation: got %+v", keys)
	}
	if err := r.Retire(ctx); err != nil {
		t.Fatal(err)
	}
	after.Older = nil
	canOpen(t, after, m, moved)
	if _, err := mustOpen(t, after, m).Unwrap(ctx, sealed, []byte("place")); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("Unwrap() of what a retired key sealed: got %v, want %v", err, ErrUnknownKey)
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "aias.key")
	c := Config{Source: Source{File: path}}
	rotateThrough(t, c, c)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() != keySize {
		t.Errorf("key file: got %v, %v; want %d bytes for the owner only", info, err, keySize)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); left != nil {
		t.Errorf("files left over: %q", left)
	}
}

// TestKeyGiven: a key that an administrator put into the file is used, the first time and for a rotation: AIAS need not write there.
func TestKeyGiven(t *testing.T) {
	path := writeFile(t, filepath.Join(t.TempDir(), "key"), strings.Repeat("a", keySize))
	m, c := &memory{}, Config{Source: Source{File: path}}
	sealed := mustWrap(t, mustOpen(t, c, m), "secret", "place")
	line := func(fill string) string { return fileLine + fill + "\n" }
	a, b := "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=", "YmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmI="
	text := line(b) + line(a)
	writeFile(t, path, text)
	r := mustOpen(t, c, m)
	want, _ := NewKey("file", bytes.Repeat([]byte{'b'}, keySize))
	if id, err := r.Rotate(context.Background()); err != nil || id != want.ID() {
		t.Errorf("Rotate() with a new key in front: got %s, %v; want %s", id, err, want.ID())
	}
	if now, _ := os.ReadFile(path); string(now) != text {
		t.Errorf("Rotate() with a new key in front: changed the file to %q", now)
	}
	canOpen(t, c, m, sealed)
}

func TestPassphrase(t *testing.T) {
	dir := t.TempDir()
	first := writeFile(t, filepath.Join(dir, "one"), "correct horse battery\n")
	next := writeFile(t, filepath.Join(dir, "two"), "a new passphrase\ncorrect horse battery\n")
	rotateThrough(t, Config{Source: Source{PassphraseFile: first}}, Config{Source: Source{PassphraseFile: next}})
}

// TestMove: from the key file of the first start to a passphrase, and to the same again.
func TestMove(t *testing.T) {
	dir := t.TempDir()
	file := Source{File: filepath.Join(dir, "key")}
	pass := Source{PassphraseFile: writeFile(t, filepath.Join(dir, "pass"), "correct horse battery\n")}
	rotateThrough(t, Config{Source: file}, Config{Source: pass, Older: []Source{file}})
}

func TestMoving(t *testing.T) {
	dir := t.TempDir()
	file, m := Source{File: filepath.Join(dir, "key")}, &memory{}
	if mustOpen(t, Config{Source: file}, m).Moving() {
		t.Error("Moving() with one source: got true")
	}
	pass := Source{PassphraseFile: writeFile(t, filepath.Join(dir, "pass"), "correct horse battery\n")}
	if !mustOpen(t, Config{Source: pass, Older: []Source{file}}, m).Moving() {
		t.Error("Moving() with another source in front: got false")
	}
}

func TestOpenRefuses(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	file, pass := Source{File: path("key")}, Source{PassphraseFile: writeFile(t, path("pass"), "correct horse battery\n")}
	filed, passed := &memory{}, &memory{}
	mustOpen(t, Config{Source: file}, filed)
	mustOpen(t, Config{Source: pass}, passed)
	write := func(name, text string) string { return writeFile(t, path(name), text) }
	for _, c := range []struct {
		name string
		c    Config
		m    *memory
		want string
	}{
		{"nothing set", Config{}, &memory{}, "set one of"},
		{"two set", Config{Source: Source{File: "a", PassphraseFile: "b"}}, &memory{}, "file and passphrase are set"},
		{"token without a PIN", Config{Source: Source{PKCS11: &PKCS11{Module: "m.so", Token: "t"}}}, &memory{}, "keys.pkcs11.pinFile is empty"},
		{"TPM without a device", Config{Source: Source{TPM: &TPM{PCRs: []int{24}}}}, &memory{}, "there is no PCR 24"},
		{"older without a place", Config{Source: file, Older: []Source{{}}}, &memory{}, "keys.older[0]"},
		{"key file lost", Config{Source: Source{File: path("lost")}}, filed, "restore it"},
		{"another key file", Config{Source: Source{File: write("other", strings.Repeat("x", 32))}}, filed, "a wrong key file"},
		{"short key file", Config{Source: Source{File: write("short", "x")}}, filed, "32 random bytes"},
		{"empty key file", Config{Source: Source{File: write("empty", "")}}, filed, "it is empty"},
		{"huge key file", Config{Source: Source{File: write("huge", strings.Repeat("x", maxKeyFile+1))}}, filed, "at most"},
		{"one key twice", Config{Source: Source{File: write("twice", strings.Repeat(fileLine+"YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=\n", 2))}}, filed, "each once"},
		{"wrong passphrase", Config{Source: Source{PassphraseFile: write("wrong", "incorrect horse\n")}}, passed, "looks like this"},
		{"short passphrase", Config{Source: Source{PassphraseFile: write("weak", "secret\n")}}, passed, "at least 12"},
		{"no passphrase", Config{Source: Source{PassphraseFile: write("none", "\n\n")}}, passed, "0 passphrases"},
		{"passphrase file lost", Config{Source: Source{PassphraseFile: path("lost")}}, &memory{}, "read the passphrase"},
		{"moved without the older one", Config{Source: pass}, filed, "keys.older"},
		{"records damaged", Config{Source: file}, &memory{data: []byte("{")}, "restore a backup"},
		{"records without current", Config{Source: file}, &memory{data: []byte(`{"current":"file:a","keys":[{"id":"file:b"}]}`)}, "not among them"},
		{"cost out of bounds", Config{Source: pass}, &memory{data: bytes.Replace(passed.data, []byte(`"memory":65536`), []byte(`"memory":4000000000`), 1)}, "out of bounds"},
		{"cheaper than it was", Config{Source: pass}, &memory{data: bytes.Replace(passed.data, []byte(`"memory":65536`), []byte(`"memory":8192`), 1)}, "looks like this"},
	} {
		if _, err := Open(ctx, c.c, c.m); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Open(): got %v, want %q", c.name, err, c.want)
		}
	}
}

// TestSaveFails: a key whose record is not on disk is not used.
func TestSaveFails(t *testing.T) {
	ctx, full := context.Background(), errors.New("disk full")
	c := Config{Source: Source{File: filepath.Join(t.TempDir(), "key")}}
	if _, err := Open(ctx, c, &memory{err: full}); !errors.Is(err, full) {
		t.Errorf("Open() when records cannot be saved: got %v, want %v", err, full)
	}
	m := &memory{}
	r := mustOpen(t, c, m)
	sealed, before := mustWrap(t, r, "secret", "place"), r.ID()
	m.err = full
	if _, err := r.Rotate(ctx); !errors.Is(err, full) || r.ID() != before {
		t.Errorf("Rotate() when records cannot be saved: got %v and key %s, want %v and %s", err, r.ID(), full, before)
	}
	m.err = nil
	canOpen(t, c, m, sealed) // though the new key is in the file already
	next := mustOpen(t, c, m)
	if id, err := next.Rotate(ctx); err != nil || id == before {
		t.Errorf("Rotate() again: got %s, %v", id, err)
	}
	canOpen(t, c, m, sealed)
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"current":"file:b","keys":[{"id":"file:b","tpm":{"public":"AAA="},"argon2id":{"salt":"AAAA"}}]}`))
	f.Add([]byte(fileLine + "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if keys, err := parseKeyFile(b); err == nil && len(keys) == 0 {
			t.Error("parseKeyFile(): got no key and no error")
		}
		if b == nil {
			return
		}
		if book, err := parseBook(b); err == nil && !known(book.Keys, book.Current) {
			t.Errorf("parseBook(%q): current key %q is not there", b, book.Current)
		}
	})
}
