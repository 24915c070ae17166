package oscap_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"touchstone.dev/touchstone/internal/compliance/content"
	"touchstone.dev/touchstone/internal/compliance/oscap"
	"touchstone.dev/touchstone/internal/compliance/xccdf"
)

const (
	sshd    = "etc/ssh/sshd_config"
	yes     = "PermitRootLogin yes\n"
	no      = "PermitRootLogin no\n"
	askFile = "TOUCHSTONE_READ"
)

// TestReadInside is no test of its own: it is run with a root as its own, and says what a file is there.
func TestReadInside(t *testing.T) {
	name := os.Getenv(askFile)
	if name == "" {
		return
	}
	b, _ := os.ReadFile(name)
	fmt.Printf("<<%s>>\n", b)
}

// readInside reads a file of a root as a process does whose root it is.
func readInside(t *testing.T, root, name string) string {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(filepath.Join(root, "self"), self, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(filepath.Join(root, "self"))
	cmd := exec.Command("/self", "-test.run=^TestReadInside$")
	cmd.Dir, cmd.Env = "/", []string{askFile + "=/" + name, "TMPDIR=/"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	out, err := cmd.CombinedOutput()
	_, text, ok := strings.Cut(string(out), "<<")
	if err != nil || !ok {
		t.Fatalf("%v\n%s", err, out)
	}
	text, _, _ = strings.Cut(text, ">>")
	return text
}

// TestLinksStayInside: oscap judges of an image what a process inside would read, whatever links lead out of it when they are followed from outside.
func TestLinksStayInside(t *testing.T) {
	needOscap(t)
	host := filepath.Join(t.TempDir(), "sshd_config") // bad, on the host
	if err := os.WriteFile(host, []byte(yes), 0o644); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 30)
	for _, test := range []struct {
		name  string
		files map[string]string
		links map[string]string // from, to
		want  xccdf.Outcome
	}{
		{"plain", map[string]string{sshd: yes}, nil, xccdf.Fail},
		{"absolute, bad inside", map[string]string{"srv/c": yes}, map[string]string{sshd: "/srv/c"}, xccdf.Fail},
		{"absolute, good inside, bad on the host", map[string]string{host[1:]: no}, map[string]string{sshd: host}, xccdf.Pass},
		{"absolute, not inside, bad on the host", nil, map[string]string{sshd: host}, xccdf.Pass},
		{"too far up, bad inside", map[string]string{"srv/c": yes}, map[string]string{sshd: up + "srv/c"}, xccdf.Fail},
		{"too far up, bad on the host", nil, map[string]string{sshd: up + host[1:]}, xccdf.Pass},
		{"a folder", map[string]string{"srv/ssh/sshd_config": yes}, map[string]string{"etc/ssh": "/srv/ssh"}, xccdf.Fail},
		{"a chain", map[string]string{"srv/c": yes}, map[string]string{sshd: "../../a/b", "a": "/srv", "srv/b": "/x", "x": up + "srv/c"}, xccdf.Fail},
		{"up from a linked folder", map[string]string{"srv/c": yes, "srv/d/e": ""}, map[string]string{sshd: "../../l/../c", "l": "/srv/d"}, xccdf.Fail},
		{"a loop", nil, map[string]string{sshd: "/etc/ssh/sshd_config"}, xccdf.Pass},
		{"the root itself", map[string]string{"etc/c": yes}, map[string]string{"etc/ssh/r": "/", sshd: "r/etc/c"}, xccdf.Fail},
		{"in /proc of the host", nil, map[string]string{sshd: "/proc/self/root" + host}, xccdf.Pass},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := image(t, []string{"base-files"}, test.files)
			for from, to := range test.links {
				path := filepath.Join(root, from)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(to, path); err != nil {
					t.Fatal(err)
				}
			}
			if inside := readInside(t, root, sshd) == yes; inside != (test.want == xccdf.Fail) {
				t.Fatalf("the test is wrong: inside, the setting is bad: %v", inside)
			}
			before := fingerprint(t, root)
			out, err := (&oscap.Runner{}).Scan(t.Context(), oscap.Scan{Content: content.Name, Profile: content.Worker, Root: root, Container: true})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range out.Result.Rules {
				if strings.HasSuffix(r.ID, "_rule_sshd_root") && r.Outcome != test.want {
					t.Errorf("got %s, want %s", r.Outcome, test.want)
				}
			}
			if fingerprint(t, root) != before {
				t.Error("the root was changed")
			}
		})
	}
}

// TestMountsBelow: what is mounted into a root is not part of it, and not looked through.
func TestMountsBelow(t *testing.T) {
	needOscap(t)
	root := image(t, []string{"base-files"}, map[string]string{"mnt/x": "", sshd: yes})
	if err := syscall.Mount("proc", filepath.Join(root, "mnt"), "proc", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(filepath.Join(root, "mnt"), 0)
	out, err := (&oscap.Runner{}).Scan(t.Context(), oscap.Scan{Content: content.Name, Profile: content.Worker, Root: root, Container: true})
	if err != nil || out.Result.Count(xccdf.Fail) == 0 {
		t.Errorf("got %v, want a result with a rule that fails", err)
	}
}

// TestFoldersAboveLookAlike: a folder into which the overlay puts something keeps mode and owner for oscap.
func TestFoldersAboveLookAlike(t *testing.T) {
	needOscap(t)
	root := image(t, []string{"base-files"}, map[string]string{"usr/local/bin/x": ""})
	bin := filepath.Join(root, "usr/local/bin")
	if err := os.Symlink("/srv/y", filepath.Join(bin, "y")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(bin, 0o777); err != nil {
		t.Fatal(err)
	}
	out, err := (&oscap.Runner{}).Scan(t.Context(), oscap.Scan{Content: content.Name, Profile: content.Image, Root: root, Container: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range out.Result.Rules {
		if strings.HasSuffix(r.ID, "_rule_program_modes") && r.Outcome != xccdf.Fail {
			t.Errorf("a folder of programs that everybody writes: got %s, want %s", r.Outcome, xccdf.Fail)
		}
	}
}
