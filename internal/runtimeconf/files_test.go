package runtimeconf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// write writes a file of a host, as old as a day.
func write(t *testing.T, root, file, text string) {
	t.Helper()
	path, old := filepath.Join(root, file), time.Now().Add(-24*time.Hour)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
}

// TestCheckFiles: the files are read as containerd reads them, and what it has not read since it started is said.
func TestCheckFiles(t *testing.T) {
	now := time.Now()
	for name, tt := range map[string]struct {
		v       Version
		change  func(t *testing.T, root string)
		started time.Time
		want    string // "": nothing keeps it from decrypting
	}{
		"1.6":              {v: Version{1, 6}},
		"2.4":              {v: Version{2, 4}},
		"not restarted":    {v: Version{1, 6}, started: now.Add(-time.Hour), want: "changed at"},
		"no configuration": {v: Version{1, 6}, change: func(t *testing.T, root string) { remove(t, root, ContainerdFile) }, want: "no stream processor accepts"},
		"not imported":     {v: Version{1, 6}, change: func(t *testing.T, root string) { write(t, root, ContainerdFile, "version = 2\n") }, want: "no stream processor accepts"},
		"transfer service": {v: Version{2, 4}, change: func(t *testing.T, root string) {
			write(t, root, "/etc/containerd/conf.d/zz.toml", "version = 3\n[plugins.'io.containerd.cri.v1.images']\nuse_local_image_pull = false\n")
		}, want: "use_local_image_pull = true"},
		"imported from beside": {v: Version{2, 4}, change: func(t *testing.T, root string) {
			write(t, root, ContainerdFile, "version = 3\nimports = [\"conf.d/touchstone-*.toml\"]\n")
		}},
		"key model of the old plugin": {v: Version{2, 4}, change: func(t *testing.T, root string) {
			write(t, root, ContainerdFile, "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n[plugins.'io.containerd.grpc.v1.cri'.image_decryption]\nkey_model = ''\n")
		}, want: "image_decryption.key_model"},
		"imports itself": {v: Version{1, 6}, change: func(t *testing.T, root string) {
			write(t, root, ContainerdFile, "version = 2\nimports = [\"/etc/containerd/*.toml\", \"/etc/containerd/conf.d/*.toml\"]\n")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			i, _ := installed(t, tt.v)
			if tt.change != nil {
				tt.change(t, i.Root)
			}
			started := tt.started
			if started.IsZero() {
				started = now.Add(time.Hour)
			}
			problems, err := CheckFiles(tt.v, i.Root, started, host(i.Root))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(problems, "; "); tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("CheckFiles(): got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestCheckFilesMalformed: what cannot be read is an error, never "nothing is wrong".
func TestCheckFilesMalformed(t *testing.T) {
	for name, text := range map[string]string{"TOML": "[", "pattern": "imports = [\"/etc/[\"]", "too many": "imports = [\"/etc/many/*\"]"} {
		root := t.TempDir()
		write(t, root, ContainerdFile, text)
		for n := range maxFiles {
			write(t, root, filepath.Join("/etc/many", strings.Repeat("x", n+1)), "version = 2\n")
		}
		if _, err := CheckFiles(Version{1, 6}, root, time.Now(), host(root)); err == nil {
			t.Errorf("CheckFiles() of malformed %s: got no error", name)
		}
	}
}

func remove(t *testing.T, root, file string) {
	t.Helper()
	if err := os.Remove(filepath.Join(root, file)); err != nil {
		t.Fatal(err)
	}
}
