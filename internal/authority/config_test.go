package authority

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/keystore"
)

const referenceConfig = "../../deploy/aias.yaml"

func TestReferenceConfig(t *testing.T) {
	data, err := os.ReadFile(referenceConfig)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseConfig(data)
	if err != nil {
		t.Fatalf("ParseConfig(%s): %v", referenceConfig, err)
	}
	want, err := ParseConfig(nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s differs from the defaults (-default +file):\n%s", referenceConfig, diff)
	}
}

// TestReferenceConfigComments takes the comment signs off the options that have no fixed default: they must exist, too.
func TestReferenceConfigComments(t *testing.T) {
	data, err := os.ReadFile(referenceConfig)
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`(?m)^# ([a-z][a-zA-Z]*:( |$))`).ReplaceAllString(string(data), "$1")
	c, err := ParseConfig([]byte(text))
	if err != nil {
		t.Fatalf("ParseConfig(%s without comment signs): %v", referenceConfig, err)
	}
	if c.SoftwareTPMRoots == "" || c.PolicyFile == "" || c.Keys.File != "/etc/aias/aias.key" || len(c.ServerNames) != 2 {
		t.Errorf("ParseConfig(%s without comment signs): got %+v, want all options set", referenceConfig, c)
	}
	examples := regexp.MustCompile(`(?m)^#   (keys: .*?\})(  .*)?$`).FindAllStringSubmatch(string(data), -1)
	if len(examples) < 4 {
		t.Errorf("%s: got %d examples of keys, want those of all places", referenceConfig, len(examples))
	}
	for _, e := range examples {
		if _, err := ParseConfig([]byte(e[1])); err != nil {
			t.Errorf("%s: example %s: %v", referenceConfig, e[1], err)
		}
	}
}

// TestServerNames: whatever names are given, the address that others use is in the certificate.
func TestServerNames(t *testing.T) {
	for text, want := range map[string][]string{
		"address: 10.96.0.7:8443\nserverNames: [aias.touchstone.svc]":   {"aias.touchstone.svc", "10.96.0.7"},
		"address: \"[fd00::7]:8443\"\nserverNames: [aias]":              {"aias", "fd00::7"},
		"address: aias.example:443\nserverNames: [other, aias.example]": {"other", "aias.example"},
		"serverNames: [aias.example]":                                   {"aias.example"},
	} {
		c, err := ParseConfig([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, c.ServerNames); diff != "" {
			t.Errorf("ParseConfig(%q): server names (-want +got):\n%s", text, diff)
		}
	}
}

func TestConfigRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"unknown field": "listen: :1\nlisten2: x", "no port": "listen: localhost", "two keys": "keyFile: a\npassphraseFile: b", "keys in two words": "keyFile: a\nkeys: {file: b}", "two places": "keys: {file: a, passphraseFile: b}",
		"certificates for ever": "certificateLifetime: 10000h", "short certificates": "certificateLifetime: 1h", "no data": "data: ''",
		"number for a duration": "challengeLifetime: soon", "log format": "log: {format: xml}", "log level": "log: {level: loud}",
		"no limits": "limits: {perNode: 0}",
	} {
		if _, err := ParseConfig([]byte(text)); err == nil {
			t.Errorf("ParseConfig(%s): got no error", name)
		}
	}
}

func TestKeyFileMustMatch(t *testing.T) {
	w := newWorld(t)
	w.enrolled("worker-1")
	path := filepath.Join(w.cfg.Data, "aias.key")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("key file: got %v, %v; want mode 0600", info, err)
	}
	if err := os.WriteFile(path, randomBytes(keySize), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := New(t.Context(), w.cfg, Dependencies{Store: w.store, Load: w.load})
	if !errors.Is(err, keystore.ErrUnknownKey) {
		t.Errorf("New() with another key file: got %v, want a refusal", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := New(t.Context(), w.cfg, Dependencies{Store: w.store, Load: w.load}); err == nil {
		t.Error("New() without the key file: got no error; a new key must not be made for old data")
	}
}

func TestPassphrase(t *testing.T) {
	file := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(file, []byte("correct horse battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(w *world) { w.cfg.PassphraseFile = file })
	m := w.enrolled("worker-1")
	w.restart()
	m.connect()
	m.attest()
	if err := os.WriteFile(file, []byte("incorrect horse battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(t.Context(), w.cfg, Dependencies{Store: w.store, Load: w.load}); err == nil {
		t.Error("New() with another passphrase: got no error")
	}
}

func TestNoSecretInPlain(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"ca.root.key", "ca.issuing.key", "key.result", "key.challenge", "key.session"} {
		b, err := w.store.Setting(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		v, err := openVault(t.Context(), &w.Authority.cfg, w.store)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := v.get(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), string(plain)) {
			t.Errorf("setting %s holds the secret in plain", name)
		}
	}
}
