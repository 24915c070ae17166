package runtimeconf

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const socket = "/run/trust-agent/keyprovider.sock"

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]Version{
		"containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3": {1, 6}, "containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7": {2, 1},
	} {
		if got, err := ParseVersion(text); err != nil || got != want {
			t.Errorf("ParseVersion(%q): got %v, %v, want %v", text, got, err, want)
		}
	}
	if v, err := ParseVersion("containerd"); err == nil {
		t.Errorf("ParseVersion(no version): got %v", v)
	}
}

// host is one that has the decoder and the files that were installed below root.
func host(root string) Host {
	return Host{
		Socket: socket,
		Look: func(p string) error {
			_, err := os.Stat(filepath.Join(root, p))
			return err
		},
		Read: func(file string) ([]byte, error) { return os.ReadFile(filepath.Join(root, file)) },
	}
}

func installed(t *testing.T, v Version) (*Install, string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "ctd-decoder")
	if err := os.WriteFile(program, []byte("program"), 0o600); err != nil {
		t.Fatal(err)
	}
	i := &Install{Root: t.TempDir(), Socket: socket, Decoder: "/usr/local/bin/ctd-decoder"}
	next, err := i.Containerd(v)
	if err == nil {
		err = i.Program(program)
	}
	if err != nil {
		t.Fatal(err)
	}
	return i, next
}

// TestInstall: what is installed is what the check wants, on each version; a second time nothing is written.
func TestInstall(t *testing.T) {
	for _, v := range []Version{{1, 6}, {1, 7}, {2, 0}, {2, 1}, {2, 4}} {
		i, next := installed(t, v)
		if next != "" || len(i.Wrote) != 4 {
			t.Errorf("%v: next %q, wrote %q", v, next, i.Wrote)
		}
		if info, err := os.Stat(filepath.Join(i.Root, i.Decoder)); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%v: decoder: %v, %v", v, info, err)
		}
		dropIn, err := os.ReadFile(filepath.Join(i.Root, DropIn))
		if err != nil {
			t.Fatal(err)
		}
		model := "\n[plugins.'io.containerd.grpc.v1.cri'.image_decryption]\nkey_model = 'node'\n[plugins.'io.containerd.cri.v1.images'.image_decryption]\nkey_model = 'node'\n"
		problems, err := CheckContainerd(v, append(dropIn, model...), host(i.Root))
		if err != nil || len(problems) != 0 {
			t.Errorf("%v: CheckContainerd(): %q, %v", v, problems, err)
		}
		i.Wrote = nil
		if next, err := i.Containerd(v); err != nil || next != "" || len(i.Wrote) != 0 {
			t.Errorf("%v: again: next %q, wrote %q, %v", v, next, i.Wrote, err)
		}
		if err := os.WriteFile(filepath.Join(i.Root, ContainerdFile), []byte("version = 2\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if next, err := i.Containerd(v); err != nil || !strings.Contains(next, `imports = ["/etc/containerd/conf.d/*.toml"]`) {
			t.Errorf("%v: a configuration without imports: next %q, %v", v, next, err)
		}
	}
	i := &Install{Root: t.TempDir(), Socket: socket}
	if err := i.CRIO(); err != nil {
		t.Fatal(err)
	}
	if problems := CheckCRIO(host(i.Root)); len(problems) != 0 {
		t.Errorf("CheckCRIO(): %q", problems)
	}
	if problems := CheckCRIO(host(t.TempDir())); len(problems) != 1 || !strings.Contains(problems[0], "install --runtime cri-o") {
		t.Errorf("CheckCRIO() of nothing: %q", problems)
	}
	if err := (&Install{Root: t.TempDir(), Decoder: "/x"}).Program("/nothing/here"); err == nil || !strings.Contains(err.Error(), "--decoder") {
		t.Errorf("Program() without a program: got %v", err)
	}
}

// TestTraps: each trap is said in words.
func TestTraps(t *testing.T) {
	i, _ := installed(t, Version{2, 1})
	good, err := os.ReadFile(filepath.Join(i.Root, DropIn))
	if err != nil {
		t.Fatal(err)
	}
	good = append(good, "\n[plugins.'io.containerd.cri.v1.images'.image_decryption]\nkey_model = 'node'\n"...)
	without := func(from, to string) []byte {
		out := bytes.ReplaceAll(good, []byte(from), []byte(to))
		if bytes.Equal(out, good) {
			t.Fatalf("no %q in the configuration", from)
		}
		return out
	}
	other := host(i.Root)
	other.Socket = "/run/other.sock"
	gone := host(i.Root)
	gone.Look = func(string) error { return errors.New("no such file") }
	missing := host(i.Root)
	missing.Read = func(file string) ([]byte, error) {
		return nil, &fs.PathError{Op: "open", Path: file, Err: fs.ErrNotExist}
	}
	for want, tt := range map[string]struct {
		dump []byte
		v    Version
		h    Host
	}{
		"use_local_image_pull = true":  {without("use_local_image_pull = true", "use_local_image_pull = false"), Version{2, 1}, host(i.Root)},
		"want \"node\"":                {without("'node'", "''"), Version{2, 1}, host(i.Root)},
		"zstd+encrypted":               {without("tar+zstd+encrypted", "tar+zstd+other"), Version{2, 1}, host(i.Root)},
		"is not there: no such file":   {good, Version{2, 1}, gone},
		"the trust agent serves at":    {good, Version{2, 1}, other},
		"ocicrypt_keyprovider.conf: f": {good, Version{2, 1}, missing},
		"does not set":                 {without(envConfig, "OTHER"), Version{2, 1}, host(i.Root)},
		"tells only":                   {without("v1.tar.gzip\"", "v1.tar.other\""), Version{2, 1}, host(i.Root)},
		"returns":                      {without("returns = \"application/vnd.oci.image.layer.v1.tar+gzip\"", "returns = \"x\""), Version{2, 1}, host(i.Root)},
		"use 1.6 or later":             {good, Version{1, 4}, host(i.Root)},
	} {
		problems, err := CheckContainerd(tt.v, tt.dump, tt.h)
		if err != nil || !strings.Contains(strings.Join(problems, "; "), want) {
			t.Errorf("CheckContainerd(): got %q, %v, want %q", problems, err, want)
		}
	}
	legacy := append(without("use_local_image_pull = true", ""), "[plugins.'io.containerd.cri.v1.images'.registry.mirrors.'docker.io']\nendpoint = ['https://mirror.example']\n"...)
	if problems, err := CheckContainerd(Version{2, 1}, legacy, host(i.Root)); err != nil || len(problems) != 0 {
		t.Errorf("CheckContainerd() with mirrors, which make pulls local: %q, %v", problems, err)
	}
	if _, err := CheckContainerd(Version{2, 1}, []byte("["), host(i.Root)); err == nil {
		t.Error("CheckContainerd() of no TOML: got no error")
	}
}

// TestRealContainerd: the containerd of this machine, when there is one, reads what is installed and says so.
func TestRealContainerd(t *testing.T) {
	program, err := exec.LookPath("containerd")
	if err != nil {
		return // the end-to-end test of images installs one
	}
	text, err := exec.CommandContext(t.Context(), program, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	v, err := ParseVersion(string(text))
	if err != nil {
		t.Fatal(err)
	}
	i, _ := installed(t, v)
	main := filepath.Join(i.Root, "main.toml")
	if err := os.WriteFile(main, []byte("version = 2\nimports = [\""+filepath.Join(i.Root, DropIn)+"\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dump, err := exec.CommandContext(t.Context(), program, "--config", main, "config", "dump").Output()
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := CheckContainerd(v, dump, host(i.Root)); err != nil || len(problems) != 0 {
		t.Errorf("CheckContainerd(%v): %q, %v", v, problems, err)
	}
	plain, err := exec.CommandContext(t.Context(), program, "config", "default").Output()
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := CheckContainerd(v, plain, host(t.TempDir())); err != nil || len(problems) == 0 {
		t.Errorf("CheckContainerd() of the default: %q, %v, want that zstd and the decoder are missing", problems, err)
	}
}
