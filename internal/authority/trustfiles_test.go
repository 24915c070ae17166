package authority

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

func TestAllowListFile(t *testing.T) {
	ek, err := tpm.ParsePublic(softtpm.New([]byte("worker-1")).EKArea())
	if err != nil {
		t.Fatal(err)
	}
	hash, err := keyHash(ek.Key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "eks")
	if err := os.WriteFile(file, []byte("# rack 3\n\n"+strings.ToUpper(hex.EncodeToString(hash[:]))+"  first worker # of three\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(w *world) { w.cfg.EKAllowList = file })
	m := w.machine("worker-1")
	m.certs = nil
	if err := m.enrol(); err != nil {
		t.Fatalf("enrol with an EK of the file: %v", err)
	}
	list, err := w.admin.EKs(t.Context())
	if err != nil || len(list) != 1 || !list[0].File || list[0].Note != "first worker" {
		t.Errorf("EKs(): got %+v, %v; want the one of the file with its note", list, err)
	}
	// A file that became unreadable must not empty the list.
	if err := os.WriteFile(file, []byte("no hash\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := w.admin.Reload(t.Context()); err == nil {
		t.Error("Reload() with a broken allow-list: got no error")
	}
	if err := m.enrol(); err != nil {
		t.Errorf("enrol after a refused reload: %v", err)
	}
}

func TestCertificateFolderRefuses(t *testing.T) {
	empty, broken := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, "a.pem"), []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{empty, broken, filepath.Join(empty, "missing")} {
		if _, _, err := readCertificates(dir); err == nil {
			t.Errorf("readCertificates(%s): got no error", filepath.Base(dir))
		}
	}
}

func FuzzAllowList(f *testing.F) {
	f.Add("# x\n" + strings.Repeat("ab", 32) + " note\n")
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(t.TempDir(), "eks")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := readAllowList(file)
		if err == nil && len(list) > strings.Count(text, "\n")+1 {
			t.Errorf("readAllowList(%q): %d entries", text, len(list))
		}
	})
}

func FuzzSession(f *testing.F) {
	w := newWorld(f)
	m := w.machine("worker-1")
	ch, err := m.begin(m.request(w.token(protocol.TokenRequest{})))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ch.Session)
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := w.openSession(text)
		if err == nil && s.Node != "worker-1" {
			t.Errorf("openSession(%q): got a session for %q that nobody sealed", text, s.Node)
		}
	})
}
