package content_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/compliance/content"
	"touchstone.dev/touchstone/internal/compliance/oscap"
	"touchstone.dev/touchstone/internal/compliance/xccdf"
)

// file is one of a root; one whose name ends with a slash is a folder, one with "-> " for content a link.
type file struct {
	name    string
	mode    os.FileMode
	content string
	gid     int
}

const (
	passwd = "root:x:0:0::/root:/bin/sh\n\nx:x:5:5::/:/bin/false\n"
	shadow = "root:*:1:::::::\n\nx:!:1:::::::\n"
)

// sound is a worker, and an image, without fault, with what could be taken for one.
var sound = []file{
	{name: "etc/debian_version", mode: 0o644, content: "12.5\n"}, {name: "etc/group", mode: 0o644, content: "root:x:0:\n"}, {name: "etc/passwd", mode: 0o644, content: passwd},
	{name: "etc/shadow", mode: 0o640, content: shadow, gid: 42}, {name: "etc/gshadow", mode: 0o600, content: "x"},
	{name: "usr/bin/passwd", mode: 0o755 | os.ModeSetuid, content: "p"}, {name: "usr/bin/x", mode: 0o755, content: "x"}, {name: "usr/sbin/y", mode: 0o755, content: "y"},
	{name: "bin", content: "-> usr/bin"}, {name: "sbin", content: "-> usr/sbin"}, {name: "usr/bin/l", content: "-> x"}, {name: "usr/local/bin/", mode: 0o755}, {name: "tmp/", mode: 0o777 | os.ModeSticky}, {name: "var/tmp/", mode: 0o777 | os.ModeSticky},
	{name: "etc/apt/apt.conf.d/50x", mode: 0o644, content: "// AllowUnauthenticated true\n# AllowWeakRepositories \"true\";\nAcquire::AllowInsecureRepositories \"false\";\n"},
	{name: "etc/apt/sources.list", mode: 0o644, content: "# deb [trusted=yes] http://x y z\ndeb [signed-by=/k] http://x y z\n"},
	{name: "etc/apt/sources.list.d/d.sources", mode: 0o644, content: "Types: deb\nTrusted: no\n"},
	{name: "etc/crontab", mode: 0o644, content: "x\n"}, {name: "etc/cron.d/a", mode: 0o644, content: "x\n"}, {name: "etc/systemd/system/a.service", mode: 0o644, content: "x\n"},
	{name: "etc/systemd/system/b.service", content: "-> /dev/null"},
	{name: "etc/ssh/sshd_config", mode: 0o644, content: "#PermitRootLogin yes\nPermitRootLogin prohibit-password\nPermitEmptyPasswords no\nHostbasedAuthentication no\nIgnoreRhosts yes\n"},
	{name: "etc/sudoers", mode: 0o440, content: "# ALL ALL=(ALL) NOPASSWD: ALL\nroot ALL=(ALL:ALL) ALL\n%ops ALL=(ALL) NOPASSWD: /bin/x\n"},
	{name: "var/lib/kubelet/config.yaml", mode: 0o600, content: "authentication:\n  anonymous:\n    enabled: false\n  webhook:\n    enabled: true\nauthorization:\n  mode: Webhook\nreadOnlyPort: 0\n"},
	{name: "var/lib/kubelet/pki/kubelet-client-1.pem", mode: 0o600, content: "k"}, {name: "var/lib/kubelet/pki/kubelet-client-current.pem", content: "-> /var/lib/kubelet/pki/kubelet-client-1.pem"},
	{name: "var/lib/kubelet/pki/kubelet.crt", mode: 0o644, content: "c"}, {name: "etc/kubernetes/kubelet.conf", mode: 0o600, content: "x"}, {name: "etc/kubernetes/manifests/a.yaml", mode: 0o600, content: "x"},
	{name: "etc/containerd/config.toml", mode: 0o644, content: "x"}, {name: "etc/cni/net.d/10-x.conflist", mode: 0o644, content: "x"},
}

// put writes a file of a root.
func (f *file) put(t *testing.T, root string) {
	t.Helper()
	path := filepath.Join(root, f.name)
	target, link := strings.CutPrefix(f.content, "-> ")
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	switch {
	case err != nil:
	case strings.HasSuffix(f.name, "/"):
		if err = os.MkdirAll(path, 0o755); err == nil {
			err = os.Chmod(path, f.mode)
		}
	case link:
		err = os.Symlink(target, path)
	default:
		if err = os.WriteFile(path, []byte(f.content), 0o600); err == nil {
			err = os.Chown(path, 0, f.gid)
		}
		if err == nil {
			err = os.Chmod(path, f.mode)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// root makes a sound root with some packages more, and files instead of its own.
func root(t *testing.T, packages []string, files ...file) string {
	t.Helper()
	dir := t.TempDir()
	var status strings.Builder
	for _, p := range packages {
		fmt.Fprintf(&status, "Package: %s\nStatus: install ok installed\nMaintainer: Nobody <nobody@example.org>\nArchitecture: amd64\nVersion: 1.0-1\nDescription: a package\n\n", p)
	}
	for _, f := range slices.Concat(sound, files, []file{{name: "var/lib/dpkg/status", mode: 0o644, content: status.String()}}) {
		f.put(t, dir)
	}
	return dir
}

// notPassed scans a root and returns the rules that do not pass.
func notPassed(t *testing.T, profile, root string) []string {
	t.Helper()
	out, err := (&oscap.Runner{}).Scan(context.Background(), oscap.Scan{Content: content.Name, Profile: profile, Root: root, Container: profile == content.Image})
	if err != nil {
		t.Fatal(err)
	}
	var not []string
	for _, r := range out.Result.Rules {
		if _, name, _ := strings.Cut(r.ID, "_rule_"); r.Outcome != xccdf.Pass && r.Outcome != xccdf.NotSelected && !isSetting(name) {
			not = append(not, name)
		}
	}
	slices.Sort(not)
	return not
}

func one(name string, mode os.FileMode, content string) []file {
	return []file{{name: name, mode: mode, content: content}}
}

// weaknesses are faults, each with the rules that must fail by it.
var weaknesses = []struct {
	name                    string
	packages                []string
	files                   []file
	both, inImage, inWorker string // names of rules: in both profiles, in that of images, in that of workers
}{
	{name: "telnet", packages: []string{"telnet"}, both: "no_telnet"}, {name: "rsh and nis", packages: []string{"rsh-client", "nis"}, both: "no_nis no_rsh"},
	{name: "compiler", packages: []string{"g++"}, inImage: "no_compilers"}, {name: "miner and SSH", packages: []string{"xmrig", "openssh-server"}, both: "no_miners", inImage: "no_ssh_server_in_image"},
	{name: "inetd", packages: []string{"xinetd"}, both: "no_talk_tftp"},
	{name: "writable passwd", files: one("etc/passwd", 0o666, passwd), both: "passwd_modes"}, {name: "group of another", files: []file{{name: "etc/shadow", mode: 0o640, content: shadow, gid: 100}}, both: "shadow_modes"},
	{name: "readable shadow", files: one("etc/shadow", 0o644, shadow), both: "shadow_modes"}, {name: "empty password", files: one("etc/shadow", 0o640, shadow+"y::1:::::::\n"), both: "no_empty_passwords"},
	{name: "root's password", files: one("etc/shadow", 0o640, "root:$y$j9T$aaaaaaaaaaaaaaaaa:1:::::::\n"), inImage: "no_root_password_in_image"},
	{name: "second root", files: one("etc/passwd", 0o644, passwd+"toor:x:0:0::/:/bin/sh\n"), both: "only_root_is_0"}, {name: "rhosts", files: one("root/.rhosts", 0o600, "+ +\n"), both: "no_rhosts"},
	{name: "preload", files: one("etc/ld.so.preload", 0o644, "/x.so\n"), both: "no_preload"}, {name: "SUID", files: one("usr/bin/x", 0o755|os.ModeSetuid, "x"), both: "suid_programs"},
	{name: "SGID in /tmp", files: one("tmp/x", 0o755|os.ModeSetgid, "x"), both: "suid_programs"}, {name: "writable folder of programs", files: one("usr/local/bin/", 0o777, ""), both: "program_modes"},
	{name: "no sticky bit", files: one("tmp/", 0o777, ""), both: "tmp_sticky"}, {name: "writable cron", files: one("etc/cron.d/a", 0o666, "x"), both: "cron_modes"}, {name: "writable unit", files: one("etc/systemd/system/a.service", 0o664, "x"), both: "unit_modes"},
	{name: "key", files: one("root/.ssh/id_ed25519", 0o600, "k"), inImage: "no_credentials_in_image"}, {name: "key of a user", files: one("home/u/.ssh/id_rsa", 0o600, "k"), inImage: "no_credentials_in_image"},
	{name: "host key", files: one("etc/ssh/ssh_host_rsa_key", 0o600, "k"), inImage: "no_credentials_in_image"}, {name: "readable host key", files: one("etc/ssh/ssh_host_rsa_key", 0o644, "k"), inImage: "no_credentials_in_image", inWorker: "sshd_keys"},
	{name: "unsigned", files: one("etc/apt/apt.conf.d/99x", 0o644, "APT { Get { AllowUnauthenticated \"true\"; } }\n"), both: "apt_is_signed"},
	{name: "trusted source", files: one("etc/apt/sources.list", 0o644, "deb [arch=amd64 trusted=yes] http://x y z\n"), both: "apt_is_signed"}, {name: "trusted sources", files: one("etc/apt/sources.list.d/d.sources", 0o644, "Types: deb\nTrusted: yes\n"), both: "apt_is_signed"},
	{name: "root by SSH", files: one("etc/ssh/sshd_config", 0o644, "PermitRootLogin=yes\n"), inWorker: "sshd_root"}, {name: "empty by SSH", files: one("etc/ssh/sshd_config.d/x.conf", 0o644, " permitemptypasswords \"yes\"\n"), inWorker: "sshd_empty_passwords"},
	{name: "host based", files: one("etc/ssh/sshd_config", 0o644, "IgnoreRhosts no\n"), inWorker: "sshd_host_based"}, {name: "sudo", files: one("etc/sudoers.d/x", 0o440, "ALL ALL=(ALL) NOPASSWD: ALL\n"), inWorker: "sudo_asks"},
	{name: "anonymous", files: one("var/lib/kubelet/config.yaml", 0o600, "authentication:\n  anonymous:\n    enabled: true\n"), inWorker: "kubelet_anonymous"},
	{name: "anonymous in JSON", files: one("var/lib/kubelet/config.yaml", 0o600, `{"authentication":{"anonymous":{"enabled":true}},"authorization":{"mode":"AlwaysAllow"},"readOnlyPort":10255}`), inWorker: "kubelet_anonymous kubelet_authorization kubelet_read_only_port"},
	{name: "readable kubelet", files: one("var/lib/kubelet/pki/kubelet-client-1.pem", 0o640, "k"), inWorker: "kubelet_modes"}, {name: "writable pods", files: one("etc/kubernetes/manifests/a.yaml", 0o666, "x"), inWorker: "static_pods_modes"},
	{name: "writable runtime", files: one("etc/containerd/config.toml", 0o666, "x"), inWorker: "runtime_modes"},
}

// TestRules: by the installed oscap a sound root passes, and each weakness makes exactly the rules fail that are about it; each rule has one.
func TestRules(t *testing.T) {
	good := []string{"base-files", "auditd"}
	tested := map[string]bool{"audit_installed": true}
	for _, k := range settings {
		tested[k.rule] = true
	}
	for _, w := range weaknesses {
		for _, s := range strings.Fields(w.both + " " + w.inImage + " " + w.inWorker) {
			tested[s] = true
		}
	}
	for _, r := range baseline(t).Rules {
		if _, name, _ := strings.Cut(r.ID, "_rule_"); !tested[name] {
			t.Errorf("rule %s has no test in which it fails", name)
		}
	}
	for profile, short := range map[string]string{content.Image: "image", content.Worker: "worker"} {
		t.Run(short+"/sound", func(t *testing.T) {
			if got := notPassed(t, profile, root(t, good)); len(got) > 0 {
				t.Errorf("rules that do not pass: %q", got)
			}
		})
		for _, w := range weaknesses {
			want := strings.Fields(w.both + " " + w.inImage)
			if profile == content.Worker {
				want = strings.Fields(w.both + " " + w.inWorker)
			}
			slices.Sort(want)
			if len(want) == 0 {
				continue
			}
			t.Run(short+"/"+w.name, func(t *testing.T) {
				if got := notPassed(t, profile, root(t, append(good, w.packages...), w.files...)); !slices.Equal(got, want) {
					t.Errorf("rules that do not pass: got %q, want %q", got, want)
				}
			})
		}
	}
	if got := notPassed(t, content.Worker, root(t, good[:1])); !slices.Equal(got, []string{"audit_installed"}) {
		t.Errorf("without auditd: got %q", got)
	}
}

// settings are rules on settings of the kernel, which oscap reads from /proc only.
var settings = []struct{ rule, file, good, bad string }{
	{"aslr", "kernel/randomize_va_space", "2", "1"}, {"kptr_restrict", "kernel/kptr_restrict", "1", "0"}, {"dmesg_restrict", "kernel/dmesg_restrict", "1", "0"},
	{"unprivileged_bpf", "kernel/unprivileged_bpf_disabled", "2", "0"}, {"kexec", "kernel/kexec_load_disabled", "1", "0"},
	{"protected_links", "fs/protected_symlinks", "1", "0"}, {"protected_links", "fs/protected_hardlinks", "1", "0"}, {"suid_dumpable", "fs/suid_dumpable", "0", "2"},
	{"syncookies", "net/ipv4/tcp_syncookies", "1", "0"}, {"no_redirects", "net/ipv4/conf/all/accept_redirects", "0", "1"}, {"no_source_route", "net/ipv4/conf/all/accept_source_route", "0", "1"},
}

func isSetting(rule string) bool {
	for _, k := range settings {
		if k.rule == rule {
			return true
		}
	}
	return false
}

// TestSettings: the same for settings of the kernel, by files in the place of the kernel's own. A kernel without BPF and kexec passes.
func TestSettings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "baseline.xml")
	if err := os.WriteFile(path, content.Baseline(), 0o600); err != nil {
		t.Fatal(err)
	}
	judge := func(bad, missing string) []string {
		t.Helper()
		dir := t.TempDir()
		args := []string{"-m", "sh", "-c", `mount --bind "$1" /proc/sys && shift && exec oscap xccdf eval --skip-validation --progress "$@"`, "sh", dir, "--profile", content.Worker}
		for _, k := range settings {
			f := file{name: k.file, mode: 0o644, content: k.good + "\n"}
			if k.file == bad {
				f.content = k.bad + "\n"
			}
			if !strings.Contains(missing, k.rule) {
				f.put(t, dir)
			}
			args = append(args, "--rule", strings.Replace(content.Worker, "profile_worker", "rule_"+k.rule, 1))
		}
		out, err := exec.Command("unshare", append(args, path)...).CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		var not []string
		judged := 0
		for line := range strings.Lines(string(out)) {
			name, outcome, found := strings.Cut(strings.TrimSpace(line), ":")
			if _, rule, ok := strings.Cut(name, "_rule_"); found && ok && isSetting(rule) && outcome != "notselected" {
				if judged++; outcome != "pass" {
					not = append(not, rule)
				}
			}
		}
		if judged != 10 {
			t.Fatalf("%d rules were judged, want 10: %s", judged, out)
		}
		return not
	}
	if got := judge("", ""); len(got) > 0 {
		t.Errorf("sound: rules that do not pass: %q", got)
	}
	if got := judge("", "kexec unprivileged_bpf"); len(got) > 0 {
		t.Errorf("without BPF and kexec: rules that do not pass: %q", got)
	}
	if got := judge("", "aslr"); !slices.Equal(got, []string{"aslr"}) {
		t.Errorf("without a setting that each kernel has: rules that do not pass: %q", got)
	}
	for _, k := range settings {
		if got := judge(k.file, ""); !slices.Equal(got, []string{k.rule}) {
			t.Errorf("%s = %s: rules that do not pass: got %q, want %s", k.file, k.bad, got, k.rule)
		}
	}
}
