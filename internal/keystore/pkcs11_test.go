//go:build pkcs11

package keystore

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"
)

const softHSM = "/usr/lib/softhsm/libsofthsm2.so"

// TestPKCS11 runs on SoftHSM: one test, since its configuration is read once in a process.
func TestPKCS11(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	conf := writeFile(t, filepath.Join(dir, "softhsm2.conf"), "directories.tokendir = "+dir+"\nobjectstore.backend = file\nlog.level = ERROR\n")
	t.Setenv("SOFTHSM2_CONF", conf)
	if out, err := exec.Command("softhsm2-util", "--init-token", "--free", "--label", "test", "--pin", "1234", "--so-pin", "5678").CombinedOutput(); err != nil {
		t.Fatalf("this test needs SoftHSM (scripts/need test): %v\n%s", err, out)
	}
	pin := writeFile(t, filepath.Join(dir, "pin"), "1234\n")
	c := Config{Source: Source{PKCS11: &PKCS11{Module: softHSM, Token: "test", PINFile: pin}}}
	rotateThrough(t, c, c)
	file := Source{File: filepath.Join(dir, "key")}
	moved := c
	moved.Older = []Source{file}
	rotateThrough(t, Config{Source: file}, moved)

	m := &memory{}
	r := mustOpen(t, c, m)
	sealed := mustWrap(t, r, "secret", "place")
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if got, err := r.Unwrap(ctx, bad, []byte("place")); !errors.Is(err, ErrSealed) && !errors.Is(err, ErrUnknownKey) {
			t.Fatalf("Unwrap() with byte %d changed: got %q, %v", i, got, err)
		}
	}
	if _, err := r.Unwrap(ctx, sealed, []byte("other")); !errors.Is(err, ErrSealed) {
		t.Errorf("Unwrap() elsewhere: got %v, want %v", err, ErrSealed)
	}
	k := r.current.(*tokenKey)
	found, err := k.token.objects(k.cka)
	if err != nil || len(found) != 1 {
		t.Fatalf("the key in the token: got %v, %v", found, err)
	}
	if v, err := k.token.ctx.GetAttributeValue(k.token.session, found[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)}); err == nil {
		t.Errorf("the key leaves the token: %x", v[0].Value)
	}
	// The session is lost: the next operation opens another one.
	if err := k.token.ctx.CloseSession(k.token.session); err != nil {
		t.Fatal(err)
	}
	canOpen(t, c, m, sealed)

	for name, change := range map[string]func(*PKCS11){
		"no module":   func(p *PKCS11) { p.Module = "/nowhere.so" },
		"no token":    func(p *PKCS11) { p.Token = "other" },
		"no PIN file": func(p *PKCS11) { p.PINFile = "/nowhere" },
	} {
		p := *c.PKCS11
		change(&p)
		if _, err := Open(ctx, Config{Source: Source{PKCS11: &p}}, &memory{}); err == nil || !strings.Contains(err.Error(), "PKCS#11") {
			t.Errorf("%s: Open(): got %v, want an error", name, err)
		}
	}
	if err := k.token.ctx.DestroyObject(k.token.session, must(k.token.objects(k.cka))[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, c, m); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("Open() when the key is gone: got %v, want %v", err, ErrUnknownKey)
	}
	_ = os.Remove(conf)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func BenchmarkPKCS11(b *testing.B) {
	dir := b.TempDir()
	b.Setenv("SOFTHSM2_CONF", writeFile(b, filepath.Join(dir, "softhsm2.conf"), "directories.tokendir = "+dir+"\n"))
	if out, err := exec.Command("softhsm2-util", "--init-token", "--free", "--label", "bench", "--pin", "1234", "--so-pin", "5678").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	r := mustOpen(b, Config{Source: Source{PKCS11: &PKCS11{Module: softHSM, Token: "bench", PINFile: writeFile(b, filepath.Join(dir, "pin"), "1234")}}}, &memory{})
	sealed := mustWrap(b, r, "secret", "place")
	for b.Loop() {
		if _, err := r.Unwrap(context.Background(), sealed, []byte("place")); err != nil {
			b.Fatal(err)
		}
	}
}
