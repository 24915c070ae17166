//go:build pkcs11

package nbde

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/keystore"
)

// softToken is a token of SoftHSM. Its configuration is read once in a process.
func softToken(t testing.TB) *keystore.PKCS11 {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("SOFTHSM2_CONF", write("softhsm2.conf", "directories.tokendir = "+dir+"\nobjectstore.backend = file\nlog.level = ERROR\n"))
	if out, err := exec.Command("softhsm2-util", "--init-token", "--free", "--label", "disks", "--pin", "1234", "--so-pin", "5678").CombinedOutput(); err != nil {
		t.Fatalf("this test needs SoftHSM (scripts/need test): %v\n%s", err, out)
	}
	return &keystore.PKCS11{Module: "/usr/lib/softhsm/libsofthsm2.so", Token: "disks", PINFile: write("pin", "1234\n")}
}

// TestPKCS11 runs unmodified clevis against keys that live in SoftHSM, on every curve: bind, restart of AIAS, rotation, bind again, and the end of a node.
func TestPKCS11(t *testing.T) {
	token, err := keystore.OpenToken(*softToken(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for _, c := range []Curve{P256, P384, P521} {
		w := &world{t: t, path: t.TempDir() + "/aias.db", now: noon, curve: c, hsm: token}
		w.start()
		t.Cleanup(func() { _ = w.db.Close() })
		w.bind("worker-1", Policy{Mode: ModeNode})
		url := served(t, w) + "/n/worker-1"
		jwe := must(t, secret, `clevis encrypt tang "$1" -y`, `{"url":"`+url+`"}`)
		w.restart()
		for range 20 { // the sign of y is right each time
			k, client := w.newest("worker-1"), on(t, c)
			got, err := k.Recover(client.public)
			if err != nil {
				t.Fatal(err)
			}
			if want, err := client.Recover(k.public); err != nil || string(got) != string(want) {
				t.Fatalf("%s: Recover(): got %x, want %x, %v", c, got, want, err)
			}
		}
		if got := must(t, jwe, "clevis decrypt"); got != secret {
			t.Errorf("%s: clevis decrypt: got %q, want %q", c, got, secret)
		}
		if err := w.Rotate(ctx, "worker-1", act("rotate")); err != nil {
			t.Fatal(err)
		}
		if got := must(t, jwe, "clevis decrypt"); got != secret {
			t.Errorf("%s: clevis decrypt after the rotation: got %q, want %q", c, got, secret)
		}
		k := w.newest("worker-1")
		if b, err := k.Marshal(); err != nil || strings.Contains(string(b), `"d"`) || !strings.Contains(string(b), "pkcs11:") {
			t.Errorf("%s: what the store has of the key: %s, %v", c, b, err)
		}
		if err := w.Forget(ctx, "worker-1", act("destroy")); err != nil {
			t.Fatal(err)
		}
		if _, err := token.Exchange(k.id, on(t, c).public); err == nil || !strings.Contains(err.Error(), "is not in token") {
			t.Errorf("%s: the key after its node was destroyed: got %v", c, err)
		}
	}
	// A whole disk.
	w := &world{t: t, path: t.TempDir() + "/aias.db", now: noon, hsm: token}
	w.start()
	t.Cleanup(func() { _ = w.db.Close() })
	w.bind("worker-1", Policy{Mode: ModeNode})
	image, pass := disk(t)
	must(t, "", `clevis luks bind -f -y -k "$2" -d "$1" tang '{"url":"'"$3"'"}'`, image, pass, served(t, w)+"/n/worker-1")
	if err := w.Rotate(ctx, "worker-1", act("rotate")); err != nil {
		t.Fatal(err)
	}
	must(t, "", `clevis luks regen -q -d "$1" -s 1`, image)
	if err := unlocks(t, image, "1"); err != nil {
		t.Errorf("after the rotation and regen: %v", err)
	}
	if _, _, err := token.NewExchange(ctx, "P-224"); err == nil {
		t.Error("NewExchange(P-224): got no error")
	}
	if _, err := token.Exchange("pkcs11:0000000000000000", on(t, P256).public); err == nil {
		t.Error("Exchange() with a key that is not there: got no error")
	}
}

func BenchmarkPKCS11(b *testing.B) {
	token, err := keystore.OpenToken(*softToken(b))
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []Curve{P256, P521} {
		b.Run(string(c), func(b *testing.B) {
			k, err := newHSMKey(b.Context(), token, c)
			if err != nil {
				b.Fatal(err)
			}
			client := on(b, c)
			for b.Loop() {
				if _, err := k.Recover(client.public); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
