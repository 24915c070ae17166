package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The commented file in deploy shows every option; what it shows must be the defaults.
func TestDeployedConfig(t *testing.T) {
	got, err := LoadConfig("../../deploy/trust-agent.yaml")
	if err != nil {
		t.Fatalf("LoadConfig: %v", err)
	}
	want := Defaults()
	want.Server = "https://aias.example.com:8443"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("deploy/trust-agent.yaml differs from Defaults (-want +got):\n%s", diff)
	}
}

func TestLoadConfigRefuses(t *testing.T) {
	const server = "server: https://a:1\n"
	for _, tc := range []struct{ name, yaml, want string }{
		{"no server", "node: a\n", "server is not set"},
		{"plain http", "server: http://a\n", "not an https URL"},
		{"unknown key", server + "sever: x\n", "unknown field"},
		{"double key", server + server, "already set"},
		{"bad duration", server + "timeout: 5\n", "timeout"},
		{"no timeout", server + "timeout: 0s\n", "timeout must be more than 0"},
		{"two trusts", server + "caFile: a\ncaHash: sha256:" + strings.Repeat("0", 64) + "\n", "choose one"},
		{"short pin", server + "caHash: sha256:00\n", "64 hexadecimal digits"},
		{"pin without algorithm", server + "caHash: " + strings.Repeat("0", 64) + "\n", "must begin with"},
		{"backoff", server + "backoff: {initial: 2m}\n", "backoff"},
		{"negative", server + "watch: {interval: -1s}\n", "negative"},
		{"level", server + "logLevel: loud\n", "logLevel"},
		{"format", server + "logFormat: xml\n", "logFormat"},
		{"empty state", server + "stateDir: \"\"\n", "stateDir"},
		{"index of the platform", server + "nvTag: {index: 0x01c00002}\n", "nvTag.index 0x01c00002"},
		{"empty tpm", server + "tpm: \"\"\n", "tpm is not set"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "c.yaml")
			if err := os.WriteFile(path, []byte(tc.yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := LoadConfig(path); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("LoadConfig: got %v, want %q", err, tc.want)
			}
		})
	}
}

func FuzzLoadConfig(f *testing.F) {
	deployed, err := os.ReadFile("../../deploy/trust-agent.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(deployed)
	f.Add([]byte("server: https://a\nwatch: {interval: 1h}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := LoadConfig(path); err == nil && c.Validate() != nil {
			t.Errorf("LoadConfig accepted what Validate refuses: %+v", c)
		}
	})
}
