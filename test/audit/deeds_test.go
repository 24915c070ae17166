package audit

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"touchstone.dev/touchstone/internal/audit/detect"
)

// deed is misuse that is really done, in a way that harms nothing.
type deed struct {
	rule  string // that finds it
	where place
	do    func(*ground)
}

// place is where a deed is done.
type place int

const (
	host place = iota
	pod
)

// deeds are in the order of the rules' files.
var deeds = []deed{
	{"exec-volatile", host, func(g *ground) { g.run(g.self) }},
	{"mining-arguments", host, func(g *ground) { g.run("/bin/true", "-o", "stratum+tcp://pool.invalid:3333") }},
	{"mining-wallet", host, func(g *ground) { g.run("/bin/true", "-u", "4"+strings.Repeat("A", 94)) }},
	{"mining-rivals", host, func(g *ground) { g.run("/usr/bin/pgrep", "xmrig-of-nobody") }},
	{"mining", host, func(g *ground) { g.run(g.self, "-o", "stratum+tcp://pool.invalid:3333") }},
	{"mining", pod, func(g *ground) { g.run("/bin/true", "--donate-level=1"); dial(3333) }},
	{"escape-setns", pod, func(g *ground) {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		f, err := os.Open("/proc/self/ns/uts")
		if err != nil {
			g.Fatal(err)
		}
		defer f.Close()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWUTS); err != nil {
			g.Fatal(err)
		}
	}},
	{"escape-nsenter", pod, func(g *ground) { g.run("/usr/bin/nsenter", "-t", "1", "--version") }},
	{"escape-mount", pod, func(g *ground) { g.run("/usr/bin/unshare", "-m", "/bin/mount", "-t", "tmpfs", "none", g.dir) }},
	{"escape-ptrace", pod, func(g *ground) {
		runtime.LockOSThread()
		c := g.victim("traced")
		if err := syscall.PtraceAttach(c.Process.Pid); err != nil {
			g.Error(err)
		}
		_ = c.Process.Kill()
		_ = c.Wait()
	}},
	{"escape-kernel-helper", pod, func(g *ground) { g.open("/proc/sys/kernel/core_pattern", os.O_WRONLY) }},
	{"escape-host-file", pod, func(g *ground) { g.open("/etc/passwd", os.O_WRONLY) }},
	{"escape-host-secret", pod, func(g *ground) { g.open("/etc/shadow", os.O_RDONLY) }},
	{"shadow-read", host, func(g *ground) { g.open("/etc/shadow", os.O_RDONLY) }},
	{"accounts-changed", host, func(g *ground) { g.open("/etc/passwd", os.O_WRONLY) }},
	{"module-load-failed", host, func(*ground) { try(unix.SYS_FINIT_MODULE, invalid) }},
	{"bpf-load", host, func(*ground) { try(unix.SYS_BPF, unix.BPF_PROG_LOAD) }},
	{"kexec-failed", host, func(*ground) { try(unix.SYS_KEXEC_LOAD, 0, invalid, 0, invalid) }},
	{"watcher-killed", host, func(g *ground) {
		c := g.victim("trust-agent")
		_ = c.Process.Kill()
		_ = c.Wait()
	}},
	{"mining-hugepages", host, func(g *ground) { g.open("/proc/sys/vm/nr_hugepages", os.O_WRONLY) }},
	{"audit-files", host, func(g *ground) { g.make("/etc/audit/touchstone-test.conf") }},
	{"audit-limits", host, func(g *ground) { g.run("/usr/sbin/auditctl", "-r", "5000"); g.run("/usr/sbin/auditctl", "-r", "0") }},
	{"audit-rules-removed", host, func(g *ground) {
		g.run("/usr/sbin/auditctl", "-a", "always,exit", "-F", "arch=b64", "-S", "swapon", "-F", "key=ts-gone")
		g.run("/usr/sbin/auditctl", "-d", "always,exit", "-F", "arch=b64", "-S", "swapon", "-F", "key=ts-gone")
	}},
	{"audit-off", host, func(g *ground) {
		g.run("/usr/sbin/auditctl", "-e", "0")
		g.Cleanup(func() { g.run("/usr/sbin/auditctl", "-e", "1") })
	}},
	{"clock-set", host, func(g *ground) { g.run("/bin/date", "-s", time.Now().Format("2006-01-02 15:04:05.999999999")) }},
	{"suid-new", host, func(g *ground) {
		if err := os.Chmod(g.self, 0o755|os.ModeSetuid); err != nil {
			g.Fatal(err)
		}
	}},
	{"suid-unknown", host, func(g *ground) {
		cmd := exec.Command(g.self)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if err := cmd.Start(); err != nil {
			g.Fatal(err)
		}
		_ = cmd.Wait()
	}},
	{"persistence-jobs", host, func(g *ground) { g.make("/etc/cron.d/touchstone-test") }},
	{"sudo-in-pod", pod, func(g *ground) { g.run("/bin/su", "--version") }},
	{"escape-proc-root", pod, func(g *ground) {
		g.open("/proc/self/root"+g.self, os.O_RDONLY)
		g.open(fmt.Sprintf("/proc/%d/root%s", os.Getpid(), g.self), os.O_RDONLY)
	}},
	{"escape-runtime-overwrite", host, func(g *ground) { g.make("/opt/cni/bin/touchstone-test") }},
	{"runtime-socket-pod", pod, func(g *ground) { g.dialUnix() }},
	{"runtime-socket-host", host, func(g *ground) { g.dialUnix() }},
	{"kubelet-api-pod", pod, func(*ground) { dial(10250) }},
	{"node-keys-read", host, func(g *ground) { g.run("/bin/cat", g.copyOf("/dev/null", "/var/lib/kubelet/pki/touchstone-test.pem")) }},
	{"pod-tokens-read", host, func(g *ground) { g.read(podVolumes + "/token") }},
	{"token-read-in-pod", pod, func(g *ground) {
		folder(g.T, g.dir+"/run/secrets/kubernetes.io/serviceaccount")
		g.run("/bin/cat", g.copyOf("/dev/null", g.dir+"/run/secrets/kubernetes.io/serviceaccount/token"))
	}},
	{"ssh-key-read", host, func(g *ground) { g.read(filepath.Join(keys, "id_touchstone")) }},
	{"ssh-authorized-keys", host, func(g *ground) { g.make(filepath.Join(keys, "authorized_keys.touchstone-test")) }},
	{"persistence-preload", host, func(g *ground) { g.make("/etc/ld.so.preload") }},
	{"persistence-static-pod", host, func(g *ground) { g.make("/etc/kubernetes/manifests/touchstone-test.yaml") }},
	{"agent-files", host, func(g *ground) { g.run("/bin/touch", g.copyOf("/dev/null", "/var/lib/trust-agent/touchstone-test")) }},
	{"ssh-guessing", host, func(g *ground) {
		for range 20 {
			g.say(1112, `op=login acct="root" exe="/usr/sbin/sshd" hostname=? addr=192.0.2.9 terminal=ssh res=failed`)
		}
	}},
	{"sudo-guessing", host, func(g *ground) {
		for range 5 {
			g.say(1100, `op=PAM:authentication grantors=? acct="root" exe="/usr/bin/sudo" hostname=? addr=? terminal=/dev/pts/1 res=failed`)
		}
	}},
}

// TestEveryRuleIsTried: each rule is set off by a deed, or, where that would harm the machine, by an event as kernels write it.
func TestEveryRuleIsTried(t *testing.T) {
	byEvent := strings.Fields("module-load kexec tpm-use mining-msr ima-tampering ssh-root physical-memory") // TestEvents of internal/audit/detect
	inPart := strings.Fields("mining-pool ssh-refused sudo-refused audit-on")                                // of deeds of others, TestFixed there
	set, err := detect.Compile(detect.Shipped())
	must(t, err)
	for _, r := range set.Rules() {
		name := r.Doc.Name
		if !slices.Contains(byEvent, name) && !slices.Contains(inPart, name) && !slices.ContainsFunc(deeds, func(d deed) bool { return d.rule == name }) {
			t.Errorf("nothing sets off rule %s", name)
		}
	}
}

func (g *ground) dialUnix() {
	g.Helper()
	c, err := net.Dial("unix", g.dir+"/containerd.sock")
	if err != nil {
		g.Fatal(err)
	}
	c.Close()
}

// read reads a file that is there for as long as the test.
func (g *ground) read(name string) {
	g.Helper()
	g.open(g.copyOf("/dev/null", name), os.O_RDONLY)
}

// say writes a record of user space, as sshd and sudo do through PAM.
func (g *ground) say(kind uint16, text string) {
	g.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT)
	if err != nil {
		g.Fatal(err)
	}
	defer unix.Close(fd) //nolint:errcheck // a test's socket
	msg := binary.NativeEndian.AppendUint32(nil, uint32(16+len(text)+1))
	msg = binary.NativeEndian.AppendUint16(msg, kind)
	msg = binary.NativeEndian.AppendUint16(msg, unix.NLM_F_REQUEST)
	msg = append(append(append(msg, make([]byte, 8)...), text...), 0)
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		g.Fatal(err)
	}
}
