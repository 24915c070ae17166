package nbde

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/swtpm"
)

const secret = "the passphrase of a disk"

// bash runs a script of Debian's clevis, cryptsetup and jose, with args as $1 and on; what it reads is in, what it prints is returned.
func bash(t testing.TB, in, script string, args ...string) (string, error) {
	t.Helper()
	need(t, "clevis", "clevis-luks-bind", "cryptsetup", "jose", "curl")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", append([]string{"-c", "set -eu; " + script, "test"}, args...)...)
	var out, said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &out, &said
	cmd.WaitDelay = time.Minute // sss ends when enough pins have opened: the others are still at it, and hold the pipes
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s", script, err, said.String())
	}
	return out.String(), nil
}

// must is bash for what has to succeed.
func must(t testing.TB, in, script string, args ...string) string {
	t.Helper()
	out, err := bash(t, in, script, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// signer is the thumbprint of the advertised signing key of a folder under a hash of thumbprints.
func signer(t testing.TB, dir string, sum int) string {
	t.Helper()
	keys, err := ReadFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if !k.Rotated && k.Use == Sign {
			return k.names[sum]
		}
	}
	t.Fatal("no signing key")
	return ""
}

// TestClevisEncryptDecrypt: every form of URL and thumbprint that clevis takes.
func TestClevisEncryptDecrypt(t *testing.T) {
	dir := tangFolder(t)
	url := serve(t, open(t, dir))
	tests := map[string]struct{ config, flag string }{
		"thumbprint":      {`{"url":"` + url + `","thp":"` + signer(t, dir, 0) + `"}`, ""},
		"old thumbprint":  {`{"url":"` + url + `","thp":"` + signer(t, dir, 1) + `"}`, ""},
		"trusted blindly": {`{"url":"` + url + `"}`, "-y"},
		"prefix":          {`{"url":"` + url + `/n/worker-1.example","thp":"` + signer(t, dir, 0) + `"}`, ""},
		"user":            {`{"url":"` + strings.Replace(url, "http://", "http://tok:abc@", 1) + `/n/worker-1","thp":"` + signer(t, dir, 0) + `"}`, ""},
		"slashes":         {`{"url":"` + url + `//n//worker-1/","thp":"` + signer(t, dir, 0) + `"}`, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			jwe := must(t, secret, `clevis encrypt tang "$1" $2`, tt.config, tt.flag)
			if got := must(t, jwe, "clevis decrypt"); got != secret {
				t.Errorf("clevis decrypt: got %q, want %q", got, secret)
			}
		})
	}
}

// TestClevisTrustsSeveralSigners: an advertisement with two signatures.
func TestClevisTrustsSeveralSigners(t *testing.T) {
	dir := tangFolder(t)
	k := add(t, dir, key(t, Sign), false)
	url := serve(t, open(t, dir))
	jwe := must(t, secret, `clevis encrypt tang "$1"`, `{"url":"`+url+`","thp":"`+k.Thumbprint+`"}`)
	if got := must(t, jwe, "clevis decrypt"); got != secret {
		t.Errorf("clevis decrypt: got %q, want %q", got, secret)
	}
}

// moved serves one address by one handler after the other.
type moved struct{ now atomic.Pointer[http.Handler] }

func (m *moved) to(h http.Handler) { m.now.Store(&h) }

// ServeHTTP hands on.
func (m *moved) ServeHTTP(w http.ResponseWriter, r *http.Request) { (*m.now.Load()).ServeHTTP(w, r) }

// disk makes a LUKS2 volume in a file, and returns it and the file with its passphrase.
func disk(t testing.TB) (image, pass string) {
	t.Helper()
	dir := t.TempDir()
	image, pass = filepath.Join(dir, "disk.img"), filepath.Join(dir, "pass")
	if err := os.WriteFile(pass, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, "", `truncate -s 20M "$1"
		cryptsetup luksFormat --type luks2 --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file "$2" "$1"`, image, pass)
	return image, pass
}

// unlocks reports whether clevis finds a passphrase for a slot, and the passphrase opens the volume.
func unlocks(t testing.TB, image, slot string) error {
	t.Helper()
	_, err := bash(t, "", `clevis luks pass -d "$1" -s "$2" >"$1.key"; cryptsetup open --test-passphrase --key-file "$1.key" "$1"`, image, slot)
	return err
}

// TestClevisLUKS binds a disk, has its keys rotated by tangd's own tool, and binds it again.
func TestClevisLUKS(t *testing.T) {
	dir := tangFolder(t)
	var at moved
	at.to(open(t, dir))
	url := serve(t, &at)
	image, pass := disk(t)
	must(t, "", `clevis luks bind -f -y -k "$2" -d "$1" tang '{"url":"'"$3"'"}'`, image, pass, url+"/n/worker-1")
	if got := must(t, "", `clevis luks list -d "$1"`, image); !strings.Contains(got, `1: tang '{"url":"`+url+`/n/worker-1"}'`) {
		t.Errorf("clevis luks list: got %q", got)
	}
	if err := unlocks(t, image, "1"); err != nil {
		t.Errorf("after bind: %v", err)
	}
	report := `clevis luks report -q -d "$1" -s 1`
	if out, err := bash(t, "", report, image); err != nil {
		t.Errorf("clevis luks report before the rotation: %v, %q", err, out)
	}
	rotate(t, dir)
	at.to(open(t, dir))
	if err := unlocks(t, image, "1"); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
	if out, err := bash(t, "", report, image); err == nil {
		t.Errorf("clevis luks report after the rotation: got %q, want that keys are to be changed", out)
	}
	must(t, "", `clevis luks regen -q -d "$1" -s 1`, image)
	if out, err := bash(t, "", report, image); err != nil {
		t.Errorf("clevis luks report after regen: %v, %q", err, out)
	}
	if err := unlocks(t, image, "1"); err != nil {
		t.Errorf("after regen: %v", err)
	}
}

// TestDataOnDisk is the proof on data: encrypted in place, opened with what AIAS gives, decrypted, compared.
func TestDataOnDisk(t *testing.T) {
	dir := tangFolder(t)
	url := serve(t, open(t, dir))
	image, pass := filepath.Join(t.TempDir(), "data.img"), filepath.Join(t.TempDir(), "pass")
	plain := bytes.Repeat([]byte("customer record 4711;"), 100_000)
	for path, b := range map[string][]byte{image: append(plain, make([]byte, 40<<20-len(plain))...), pass: []byte(secret)} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	must(t, "", `cryptsetup reencrypt --encrypt --type luks2 --batch-mode --reduce-device-size 32M --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file "$2" "$1"
		clevis luks bind -f -y -k "$2" -d "$1" tang '{"url":"'"$3"'"}'`, image, pass, url)
	if b, err := os.ReadFile(image); err != nil || bytes.Contains(b, plain[:42]) {
		t.Fatalf("the encrypted image still has the data: %v", err)
	}
	must(t, "", `clevis luks pass -d "$1" -s 1 >"$1.key"
		cryptsetup reencrypt --decrypt --force-offline-reencrypt --header "$1.header" --key-file "$1.key" --batch-mode "$1"`, image)
	b, err := os.ReadFile(image)
	if err != nil || !bytes.HasPrefix(b, plain) {
		t.Errorf("the data is not what it was: %v", err)
	}
}

// TestTwoOfThree: a secret that needs two of our server, another Tang and the TPM.
func TestTwoOfThree(t *testing.T) {
	tpm, err := swtpm.Start(t.Context(), swtpm.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tpm.Stop() })
	t.Setenv("TPM2TOOLS_TCTI", "swtpm:path="+strings.TrimPrefix(tpm.Address(), "unix:"))
	need(t, "tpm2_pcrextend", "clevis-encrypt-tpm2")
	ours, theirs := tangFolder(t), tangFolder(t)
	var at moved
	at.to(open(t, ours))
	gone := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	other := realTang(t, theirs)
	pins := fmt.Sprintf(`{"t":2,"pins":{"tpm2":{"pcr_bank":"sha256","pcr_ids":"7"},"tang":[{"url":"%s/n/worker-1","thp":"%s"},{"url":"%s","thp":"%s"}]}}`,
		serve(t, &at), signer(t, ours, 0), other, signer(t, theirs, 0))
	jwe := must(t, secret, `clevis encrypt sss "$1"`, pins)
	want := func(when string, ok bool) {
		t.Helper()
		if got, err := bash(t, jwe, "clevis decrypt"); (err == nil && got == secret) != ok {
			t.Errorf("%s: got %q, %v; want success %v", when, got, err, ok)
		}
	}
	want("all three", true)
	at.to(gone)
	want("without ours", true)
	must(t, "", `tpm2_pcrextend "7:sha256=$(printf '12%.0s' {1..32})"`)
	want("without ours and another boot", false)
	at.to(open(t, ours))
	want("another boot", true)
}

// TestTangdHandsOver: what was bound to a tangd, with keys that it has rotated since, is recovered by us over its folder, at its address.
func TestTangdHandsOver(t *testing.T) {
	dir := tangFolder(t)
	l := listen(t, "127.0.0.1:0")
	tangdAt(t, l, dir)
	address := l.Addr().String()
	jwe := must(t, secret, `clevis encrypt tang "$1"`, `{"url":"http://`+address+`","thp":"`+signer(t, dir, 0)+`"}`)
	rotate(t, dir)
	_ = l.Close()
	s := httptest.NewUnstartedServer(open(t, dir))
	_ = s.Listener.Close()
	s.Listener = listen(t, address)
	s.Start()
	t.Cleanup(s.Close)
	if got := must(t, jwe, "clevis decrypt"); got != secret {
		t.Errorf("clevis decrypt: got %q, want %q", got, secret)
	}
}

// TestDeniedThenAllowed: clevis tries again by itself, as it does at a boot, until the gate opens. The loop is that of clevis-luks-askpass, around the
// function that it calls; the rest of that program needs a block device.
func TestDeniedThenAllowed(t *testing.T) {
	dir := tangFolder(t)
	s := open(t, dir)
	var asked atomic.Int32
	var allowed atomic.Bool
	s.Gate = func(_ context.Context, a Ask) error {
		if asked.Add(1); a.Node != "worker-1" {
			t.Errorf("Gate(): node %q, want worker-1", a.Node)
		}
		if !allowed.Load() {
			return fmt.Errorf("%w: not attested", ErrDenied)
		}
		return nil
	}
	url := serve(t, s)
	image, pass := disk(t)
	allowed.Store(true)
	must(t, "", `clevis luks bind -f -y -k "$2" -d "$1" tang '{"url":"'"$3"'"}'`, image, pass, url+"/n/worker-1")
	allowed.Store(false)
	asked.Store(0)
	go func() {
		for asked.Load() < 3 {
			time.Sleep(20 * time.Millisecond)
		}
		allowed.Store(true)
	}()
	must(t, "", `set +eu; . clevis-luks-common-functions
		for try in {1..60}; do
			if pt=$(clevis_luks_unlock_device "$1") && [ -n "$pt" ]; then
				printf '%s' "$pt" | cryptsetup open --test-passphrase --key-file - "$1"; exit
			fi
			sleep 0.5
		done; exit 1`, image)
	if n := asked.Load(); n < 4 {
		t.Errorf("the gate was asked %d times, want 3 refusals and a release", n)
	}
}
