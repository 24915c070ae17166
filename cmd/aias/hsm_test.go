//go:build pkcs11

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"touchstone.dev/touchstone/internal/protocol"
)

// sh runs a script of Debian's clevis and cryptsetup.
func sh(t *testing.T, in, script string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", append([]string{"-euc", script, "test"}, args...)...)
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// mustSh is sh of what must go well.
func mustSh(t *testing.T, in, script string, args ...string) string {
	t.Helper()
	out, err := sh(t, in, script, args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// tokens makes a place of SoftHSM tokens, and says to programs that start from now on that it is the machine's.
func tokens(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+dir+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	return dir
}

// newToken makes a token with the label that the configuration names.
func newToken(t *testing.T) {
	t.Helper()
	mustSh(t, "", "softhsm2-util --init-token --free --label disks --pin 1234 --so-pin 5678")
}

// hsmMachine is an AIAS that answers clevis at an address, on a machine with its own data folder.
type hsmMachine struct{ config, data, plain string }

// newHSMMachine writes the configuration; plain is the same without the HSM.
func newHSMMachine(t *testing.T, address string) hsmMachine {
	t.Helper()
	m := hsmMachine{}
	m.config, m.data = setUp(t)
	m.plain = filepath.Join(filepath.Dir(m.config), "plain.yaml")
	pin := filepath.Join(filepath.Dir(m.config), "pin")
	text, err := os.ReadFile(m.config)
	if err != nil {
		t.Fatal(err)
	}
	hsm := fmt.Sprintf("  hsm: {module: /usr/lib/softhsm/libsofthsm2.so, token: disks, pinFile: %q}\n", pin)
	disks := fmt.Sprintf("%sdisks:\n  listen: %q\n", text, address)
	for path, b := range map[string]string{m.config: disks + hsm, m.plain: disks, pin: "1234\n"} {
		if err := os.WriteFile(path, []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// serve starts AIAS with one of the configurations until stop.
func (m hsmMachine) serve(t *testing.T, config string) (stop func()) {
	t.Helper()
	cmd, _ := served(t, config, m.data)
	return func() { _ = cmd.Process.Signal(os.Interrupt); _ = cmd.Wait() }
}

// restore restores, and returns what was said.
func (b *hsmBackup) restore(t *testing.T, m hsmMachine, config string, args ...string) (string, error) {
	t.Helper()
	out, err := command(t, append([]string{"restore", b.file, "--config", config, "--identity", b.identity}, args...)...).CombinedOutput()
	return string(out), err
}

// hsmBackup is a backup, and what was bound before it: a disk and a secret to keys in the token, a secret to a key in memory.
type hsmBackup struct {
	file, identity      string
	disk, inHSM, inFile string
}

// makeHSMBackup binds unmodified clevis to an AIAS with keys in the token, and one without, and backs it up.
func makeHSMBackup(t *testing.T, m hsmMachine, address string) *hsmBackup {
	t.Helper()
	bind := func(config, node string) (secret string) {
		t.Helper()
		cmd, c := served(t, config, m.data)
		defer func() { _ = cmd.Process.Signal(os.Interrupt); _ = cmd.Wait() }()
		if _, err := c.BindDisk(context.Background(), node, protocol.DiskPolicy{Mode: "node"}); err != nil {
			t.Fatal(err)
		}
		return mustSh(t, "secret of "+node, `clevis encrypt tang "$1" -y 2>/dev/null`, `{"url":"http://`+address+`/n/`+node+`"}`)
	}
	dir := t.TempDir()
	b := &hsmBackup{file: filepath.Join(dir, "aias.age"), identity: filepath.Join(dir, "identity"), disk: filepath.Join(dir, "disk.img")}
	b.inFile = bind(m.plain, "worker-2")
	b.inHSM = bind(m.config, "worker-1")
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.identity, []byte(id.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	stop := m.serve(t, m.config)
	defer stop()
	mustSh(t, "", `truncate -s 20M "$1"; echo -n passphrase >"$1.pass"
		cryptsetup luksFormat --type luks2 --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file "$1.pass" "$1"
		clevis luks bind -f -y -k "$1.pass" -d "$1" tang "$2"; rm "$1.pass"`, b.disk, `{"url":"http://`+address+`/n/worker-1"}`)
	if out, err := command(t, "backup", "--config", m.config, "--out", b.file, "--recipient", id.Recipient().String()).CombinedOutput(); err != nil {
		t.Fatalf("aias backup: %v\n%s", err, out)
	}
	return b
}

// opens checks what unmodified clevis gets.
func (b *hsmBackup) opens(t *testing.T, when string, inHSM bool) {
	t.Helper()
	if got := mustSh(t, b.inFile, "clevis decrypt"); got != "secret of worker-2" {
		t.Errorf("%s: the secret with a key in memory: got %q", when, got)
	}
	got, err := sh(t, b.inHSM, "clevis decrypt")
	if ok := err == nil && got == "secret of worker-1"; ok != inHSM {
		t.Errorf("%s: the secret with a key in the token: got %q, %v; want it opened: %v", when, got, err, inHSM)
	}
	out, err := sh(t, "", `clevis luks pass -d "$1" -s 1 >"$1.key"; cryptsetup open --test-passphrase --key-file "$1.key" "$1"`, b.disk)
	if (err == nil) != inHSM {
		t.Errorf("%s: the disk: %v, %s; want it opened: %v", when, err, out, inHSM)
	}
}

// refused checks that a restore refused, and left nothing.
func (m hsmMachine) refused(t *testing.T, when, out string, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: aias restore: got %q, want a refusal", when, out)
	}
	for _, word := range append(words, "those of worker-1: ", "disks.hsm", "--without-hsm", "nothing was written") {
		if !strings.Contains(out, word) {
			t.Errorf("%s: aias restore says %q, want %q", when, out, word)
		}
	}
	left, err := os.ReadDir(m.data)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		if !strings.HasSuffix(e.Name(), ".lock") {
			t.Errorf("%s: aias restore left %s", when, e.Name())
		}
	}
}

// TestPKCS11Restore is the drill: AIAS, whose exchange keys are in a token, and its machine are gone.
func TestPKCS11Restore(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	token := tokens(t)
	newToken(t)
	first := newHSMMachine(t, address)
	b := makeHSMBackup(t, first, address)
	stop := first.serve(t, first.config)
	b.opens(t, "before", true)
	stop()

	// The same token on an empty machine.
	m := newHSMMachine(t, address)
	if out, err := b.restore(t, m, m.config); err != nil {
		t.Fatalf("aias restore with the same token: %v\n%s", err, out)
	}
	stop = m.serve(t, m.config)
	b.opens(t, "with the same token", true)
	stop()

	// The configuration does not name it.
	m = newHSMMachine(t, address)
	out, err := b.restore(t, m, m.plain)
	m.refused(t, "without disks.hsm", out, err, "set disks.hsm")

	// Another machine without a token, then with an empty one of that label.
	tokens(t)
	out, err = b.restore(t, m, m.config)
	m.refused(t, "no token", out, err, `there is no token "disks"`)
	newToken(t)
	out, err = b.restore(t, m, m.config)
	m.refused(t, "an empty token", out, err, "is not in token disks")

	// All else is restored when that is what is wanted, and serves; what is bound anew opens.
	if out, err := b.restore(t, m, m.plain, "--without-hsm"); err != nil {
		t.Fatalf("aias restore --without-hsm: %v\n%s", err, out)
	}
	cmd, c := served(t, m.plain, m.data)
	b.opens(t, "without the token", false)
	all, err := c.Disks(context.Background())
	if err != nil || all.Nodes[0].Last == nil || !strings.Contains(all.Nodes[0].Last.Reason, "set disks.hsm") {
		t.Errorf("what an operator sees of worker-1 without the token: got %+v, %v; want what to set", all, err)
	}
	to := `{"url":"http://` + address + `/n/worker-1"}`
	if out, err := sh(t, "new", `clevis encrypt tang "$1" -y`, to); err == nil {
		t.Errorf("clevis encrypt to a key that is lost: got %q, want a refusal", out)
	}
	if _, err := c.ActOnDisk(context.Background(), "worker-1", protocol.DiskRotate, protocol.DiskAct{}); err != nil {
		t.Fatal(err)
	}
	anew := mustSh(t, "new", `clevis encrypt tang "$1" -y 2>/dev/null`, to)
	if got := mustSh(t, anew, "clevis decrypt"); got != "new" {
		t.Errorf("clevis decrypt after a rotation without the token: got %q", got)
	}
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()

	// A copy of the token comes: the machine that did without takes it, and so does an empty one.
	if err := os.CopyFS(filepath.Join(tokens(t), "copy"), os.DirFS(token)); err != nil {
		t.Fatal(err)
	}
	conf := os.Getenv("SOFTHSM2_CONF")
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+filepath.Join(filepath.Dir(conf), "copy")+"\nobjectstore.backend = file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(token); err != nil {
		t.Fatal(err)
	}
	stop = m.serve(t, m.config)
	b.opens(t, "the token came later", true)
	if got := mustSh(t, anew, "clevis decrypt"); got != "new" {
		t.Errorf("the key that was made meanwhile: got %q", got)
	}
	stop()
	m = newHSMMachine(t, address)
	if out, err := b.restore(t, m, m.config); err != nil {
		t.Fatalf("aias restore with a copy of the token: %v\n%s", err, out)
	}
	stop = m.serve(t, m.config)
	b.opens(t, "with a copy of the token", true)
	stop()
}
