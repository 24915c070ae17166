package agent

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"touchstone.dev/touchstone/internal/evidence"
)

// ecKey makes a key as a kubelet writes it, with the hash of its public half.
func ecKey(t testing.TB) (text []byte, hash string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), spki(t, key.Public())
}

func spki(t testing.TB, public crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// pki is a kubelet's folder of keys below a root of its own, and the host that reads it.
func pki(t testing.TB) (dir string, host Host) {
	t.Helper()
	root := t.TempDir()
	dir = filepath.Join(root, "var/lib/kubelet/pki")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir, withKubelet(&fakeHost{facts: map[string][]byte{}}, root, "/var/lib/kubelet/pki")
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// keys are the hashes that the host tells.
func keys(t testing.TB, host Host) string {
	t.Helper()
	facts, err := host.Facts()
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(facts[evidence.FactKubeletKeys]), "\n", " ")
}

func TestKubeletKeys(t *testing.T) {
	dir, host := pki(t)
	if got := keys(t, host); got != "" {
		t.Errorf("keys of an empty folder: got %q, want none", got)
	}
	first, one := ecKey(t)
	write(t, filepath.Join(dir, kubeletFiles[0]), first)
	if got := keys(t, host); got != one+" " {
		t.Errorf("keys while bootstrapping: got %q, want %q", got, one)
	}
	// The certificate comes: both are in a dated file, the link is the host's path.
	second, two := ecKey(t)
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("any")})
	write(t, filepath.Join(dir, "kubelet-client-2026.pem"), append(certificate, second...))
	if err := os.Symlink("/var/lib/kubelet/pki/kubelet-client-2026.pem", filepath.Join(dir, kubeletFiles[1])); err != nil {
		t.Fatal(err)
	}
	if got, want := keys(t, host), one+" "+two+" "+digest([]byte("any"))+" "; got != want {
		t.Errorf("keys with a certificate: got %q, want %q, of which the last is the certificate's", got, want)
	}
	if host := withKubelet(&fakeHost{}, "/", ""); host == nil {
		t.Error("withKubelet() without a folder: got no host")
	} else if _, ok := host.(kubelet); ok {
		t.Error("withKubelet() without a folder: got a kubelet")
	}
}

// TestKubeletKeyForms: every form of key that Go can write; nothing of a private key is in the facts.
func TestKubeletKeyForms(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	eight := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	for _, tt := range []struct {
		kind   string
		der    []byte
		public crypto.PublicKey
	}{
		{"RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey), rsaKey.Public()},
		{"PRIVATE KEY", eight(rsaKey), rsaKey.Public()},
		{"PRIVATE KEY", eight(edKey), edKey.Public()},
	} {
		dir, host := pki(t)
		write(t, filepath.Join(dir, kubeletFiles[0]), pem.EncodeToMemory(&pem.Block{Type: tt.kind, Bytes: tt.der}))
		if got, want := keys(t, host), spki(t, tt.public)+" "; got != want {
			t.Errorf("%s: got %q, want %q", tt.kind, got, want)
		}
	}
}

// TestKubeletHostile: whatever lies in the folder, the agent reads on, and tells no key.
func TestKubeletHostile(t *testing.T) {
	good, _ := ecKey(t)
	outside := filepath.Join(t.TempDir(), "key")
	write(t, outside, good)
	for name, lay := range map[string]func(path string) error{
		"garbage":    func(p string) error { return os.WriteFile(p, []byte("garbage"), 0o600) },
		"bad key":    func(p string) error { return os.WriteFile(p, bytes.ReplaceAll(good, []byte("M"), []byte("N")), 0o600) },
		"too large":  func(p string) error { return os.WriteFile(p, append(good, make([]byte, maxKubeletFile)...), 0o600) },
		"folder":     func(p string) error { return os.Mkdir(p, 0o700) },
		"pipe":       func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"outside":    func(p string) error { return os.Symlink(outside, p) },
		"loop":       func(p string) error { return os.Symlink(p, p) },
		"up":         func(p string) error { return os.Symlink("..", p) },
		"device":     func(p string) error { return os.Symlink("/dev/zero", p) },
		"half a key": func(p string) error { return os.WriteFile(p, good[:len(good)/2], 0o600) },
	} {
		dir, host := pki(t)
		if err := lay(filepath.Join(dir, kubeletFiles[0])); err != nil {
			t.Fatal(err)
		}
		if got := keys(t, host); got != "" {
			t.Errorf("%s: got keys %q, want none", name, got)
		}
		host.(kubelet).stamp()
	}
}

// TestKubeletKeyIsAttestedAtOnce: a new key is in Evidence well within a second.
func TestKubeletKeyIsAttestedAtOnce(t *testing.T) {
	dir, _ := pki(t)
	text, hash := ecKey(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.Agent.host = withKubelet(w.host, "/", dir)
		w.watch.host = w.Agent.host
		var changed time.Time
		err := w.run(5*time.Second, func() {
			time.Sleep(10 * time.Second)
			changed = time.Now()
			write(t, filepath.Join(dir, kubeletFiles[0]), text)
		})
		if err != nil || len(w.reports) != 2 {
			t.Fatalf("Run: %v, %d attestations, want 2", err, len(w.reports))
		}
		if r := w.reports[1]; r.Trigger != TriggerKubelet || w.link.times[1].Sub(changed) > time.Second {
			t.Errorf("second attestation: %q after %v, want %q within a second", r.Trigger, w.link.times[1].Sub(changed), TriggerKubelet)
		}
		if got := string(w.link.docs[1].Facts[evidence.FactKubeletKeys]); got != hash+"\n" {
			t.Errorf("keys in the Evidence: got %q, want %q", got, hash)
		}
	})
}

func FuzzPublicKey(f *testing.F) {
	text, _ := ecKey(f)
	f.Add(text)
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if der, err := publicKey(data); err == nil {
			if _, err := x509.ParsePKIXPublicKey(der); err != nil {
				t.Errorf("publicKey() gave no public key: %v", err)
			}
		}
	})
}

// BenchmarkKubeletStamp is one look at the kubelet's folder: the agent does four a second.
func BenchmarkKubeletStamp(b *testing.B) {
	dir, host := pki(b)
	text, _ := ecKey(b)
	write(b, filepath.Join(dir, "kubelet-client-2026.pem"), text)
	if err := os.Symlink("/x/kubelet-client-2026.pem", filepath.Join(dir, kubeletFiles[1])); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		host.(kubelet).stamp()
	}
}
