// Package audittest gives tests the real audit subsystem: it starts auditd with a configuration and log of its own, loads rules, and
// leaves the machine as it was. The kernel has one audit subsystem, so whoever holds it keeps the machine's lock: tests of several
// packages wait for each other.
package audittest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lockFile is held while a test uses audit.
const lockFile = "/tmp/touchstone-audit.lock"

// Auditd is a running auditd, its rules, and the lock.
type Auditd struct {
	Dir string // its configuration
	Log string // its log
	tb  testing.TB
	cmd *exec.Cmd
}

// Options of Start.
type Options struct {
	Raw       bool // log_format = RAW, else ENRICHED
	MaxLogMB  int  // size at which it rotates; 0: 512
	NumLogs   int  // logs that it keeps; 0: 5
	NoAuditd  bool // only the lock and the rules: nobody reads
	Backlog   int  // 0: 8192
	WaitTicks int  // backlog_wait_time; 0: 60000
}

// Start takes the lock, removes all rules, switches audit on and starts auditd. The end of the test undoes all of it. It needs root and
// Debian's package auditd, and fails the test when they are not there.
func Start(tb testing.TB, o Options) *Auditd {
	tb.Helper()
	for _, program := range []string{"auditd", "auditctl"} {
		if _, err := exec.LookPath(program); err != nil {
			tb.Fatalf("%v: the test needs the real auditd (scripts/need test installs it)", err)
		}
	}
	if os.Geteuid() != 0 {
		tb.Fatal("the test loads audit rules: run it as root")
	}
	lock(tb)
	a := &Auditd{tb: tb, Dir: tb.TempDir()}
	a.Log = filepath.Join(a.Dir, "audit.log")
	a.configure(o)
	before := a.Ctl("-s")
	a.Ctl("-D")
	tb.Cleanup(func() {
		a.Ctl("-D")
		a.Ctl("-b", value(before, "backlog_limit"))
		a.Ctl("--backlog_wait_time", value(before, "backlog_wait_time"))
		a.Ctl("-e", "0")
	})
	if !o.NoAuditd {
		a.Run()
	}
	a.Ctl("-b", strconv.Itoa(def(o.Backlog, 8192)))
	a.Ctl("--backlog_wait_time", strconv.Itoa(def(o.WaitTicks, 60000)))
	a.Ctl("-e", "1")
	return a
}

func def(v, otherwise int) int {
	if v == 0 {
		return otherwise
	}
	return v
}

// value returns a value of auditctl -s.
func value(status, name string) string {
	for line := range strings.Lines(status) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == name {
			return f[1]
		}
	}
	return "64"
}

// lock waits for the machine's audit subsystem.
func lock(tb testing.TB) {
	tb.Helper()
	f, err := os.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		tb.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		tb.Fatalf("lock of %s: %v", lockFile, err)
	}
	tb.Cleanup(func() { f.Close() })
}

func (a *Auditd) configure(o Options) {
	format := "ENRICHED"
	if o.Raw {
		format = "RAW"
	}
	plugins := filepath.Join(a.Dir, "plugins.d")
	if err := os.Mkdir(plugins, 0o750); err != nil {
		a.tb.Fatal(err)
	}
	text := fmt.Sprintf(`local_events = yes
write_logs = yes
log_file = %s
log_group = root
log_format = %s
flush = INCREMENTAL_ASYNC
freq = 50
max_log_file = %d
num_logs = %d
max_log_file_action = ROTATE
priority_boost = 4
name_format = NONE
plugin_dir = %s
space_left = 2
space_left_action = IGNORE
admin_space_left = 1
admin_space_left_action = IGNORE
disk_full_action = IGNORE
disk_error_action = IGNORE
`, a.Log, format, def(o.MaxLogMB, 512), def(o.NumLogs, 5), plugins)
	if err := os.WriteFile(filepath.Join(a.Dir, "auditd.conf"), []byte(text), 0o600); err != nil {
		a.tb.Fatal(err)
	}
}

// Run starts auditd, also again after Kill, and returns when the kernel knows it.
func (a *Auditd) Run() {
	a.tb.Helper()
	var out bytes.Buffer
	cmd := exec.Command("auditd", "-n", "-c", a.Dir)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		a.tb.Fatal(err)
	}
	a.cmd = cmd
	a.tb.Cleanup(func() { a.end(cmd, syscall.SIGTERM) })
	pid := "pid " + strconv.Itoa(cmd.Process.Pid)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if strings.Contains(a.Ctl("-s"), pid+"\n") {
			return
		}
		if time.Now().After(deadline) {
			a.tb.Fatalf("auditd did not start within 20 s:\n%s", out.String())
		}
	}
}

// Kill kills auditd without a warning.
func (a *Auditd) Kill() { a.end(a.cmd, syscall.SIGKILL) }

// PID returns auditd's process.
func (a *Auditd) PID() int { return a.cmd.Process.Pid }

func (a *Auditd) end(cmd *exec.Cmd, s syscall.Signal) {
	if cmd.ProcessState != nil {
		return
	}
	_ = cmd.Process.Signal(s)
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		_ = cmd.Process.Kill()
		<-done
	}
}

// Ctl runs auditctl, which must succeed, and returns what it printed.
func (a *Auditd) Ctl(args ...string) string {
	a.tb.Helper()
	out, err := exec.Command("auditctl", args...).CombinedOutput()
	if err != nil {
		a.tb.Fatalf("auditctl %q: %v\n%s", args, err, out)
	}
	return string(out)
}
