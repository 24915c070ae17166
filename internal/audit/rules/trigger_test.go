package rules_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"touchstone.dev/touchstone/internal/audit/audittest"
	"touchstone.dev/touchstone/internal/audit/rules"
	"touchstone.dev/touchstone/internal/audit/source"
)

// sameMode sets a file's mode to what it is: audit tells of it, nothing changes.
func sameMode(t *testing.T, name string) {
	t.Helper()
	info, err := os.Stat(name)
	if err == nil {
		err = os.Chmod(name, info.Mode())
	}
	if err != nil {
		t.Error(err)
	}
}

// openClose opens a file and closes it without writing.
func openClose(t *testing.T, name string, flags int) {
	t.Helper()
	f, err := os.OpenFile(name, flags, 0)
	if err != nil {
		t.Error(err)
		return
	}
	f.Close()
}

// call makes a system call that fails, or does nothing.
func call(nr uintptr, args ...uintptr) {
	args = append(args, make([]uintptr, 6)...)
	_, _, _ = syscall.Syscall6(nr, args[0], args[1], args[2], args[3], args[4], args[5])
}

// TestRulesTell: with the shipped rules in the kernel, doing the thing gives an event with its key. Each is done in a way that changes
// nothing: with the same mode, with arguments that the kernel refuses, on files and processes of the test.
func TestRulesTell(t *testing.T) {
	a := audittest.Start(t, audittest.Options{})
	if _, err := rules.Install(t.Context(), rules.Auditctl, agent(t), "", rules.DefaultControl); err != nil {
		t.Fatal(err)
	}
	r, err := source.Open(t.Context(), source.Config{Log: a.Log})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	dir := t.TempDir()
	own := filepath.Join(dir, "own")
	if err := os.WriteFile(own, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	child := func() *exec.Cmd {
		cmd := exec.Command("sleep", "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	invalid := ^uintptr(0)
	for _, test := range []struct {
		key string
		do  func()
	}{
		{"ts-identity", func() { sameMode(t, "/etc/passwd") }},
		{"ts-identity", func() { openClose(t, "/etc/shadow", os.O_RDONLY) }},
		{"ts-privilege", func() { sameMode(t, "/etc/pam.d") }},
		{"ts-persistence", func() { sameMode(t, "/etc/systemd/system") }},
		{"ts-suid", func() { _ = os.Chmod(own, 0o755|os.ModeSetuid) }},
		{"ts-exec", func() { _ = exec.Command(own).Run() }},
		{"ts-memfd", func() {
			if fd, err := unix.MemfdCreate("x", 0); err == nil {
				_ = unix.Close(fd)
			}
		}},
		{"ts-connect", func() {
			if c, err := net.DialTimeout("tcp4", "127.0.0.1:3333", time.Second); err == nil {
				c.Close()
			}
		}},
		{"ts-connect", func() {
			if c, err := net.DialTimeout("tcp6", "[::1]:3333", time.Second); err == nil {
				c.Close()
			}
		}},
		{"ts-namespace", func() { call(unix.SYS_UNSHARE, 0) }},
		{"ts-namespace", func() { call(unix.SYS_SETNS, invalid) }},
		{"ts-mount", func() { call(unix.SYS_MOUNT) }},
		{"ts-mount", func() { call(unix.SYS_UMOUNT2) }},
		{"ts-ptrace", func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			c := child()
			if err := syscall.PtraceAttach(c.Process.Pid); err != nil {
				t.Error(err)
			}
			_ = c.Process.Kill()
			_ = c.Wait()
		}},
		{"ts-ptrace", func() { call(unix.SYS_PROCESS_VM_WRITEV, invalid) }},
		{"ts-bpf", func() { call(unix.SYS_BPF, unix.BPF_PROG_LOAD) }},
		{"ts-module", func() { call(unix.SYS_FINIT_MODULE, invalid) }},
		{"ts-kexec", func() { call(unix.SYS_KEXEC_LOAD, 0, invalid, 0, invalid) }},
		{"ts-handle", func() { call(unix.SYS_OPEN_BY_HANDLE_AT, invalid) }},
		{"ts-time", func() { call(unix.SYS_CLOCK_SETTIME, invalid) }},
		{"ts-kill", func() { c := child(); _ = c.Process.Kill(); _ = c.Wait() }},
		{"ts-kernel-helper", func() { openClose(t, "/proc/sys/kernel/core_pattern", os.O_WRONLY) }},
		{"ts-hugepages", func() { openClose(t, "/proc/sys/vm/nr_hugepages", os.O_WRONLY) }},
		{"ts-audit-config", func() { sameMode(t, "/etc/audit") }},
		{"ts-audit-tool", func() { _ = exec.Command("auditctl", "-v").Run() }},
		{"ts-agent", func() { sameMode(t, agent(t)) }},
	} {
		flush(r)
		test.do()
		if !tells(r, test.key) {
			t.Errorf("%s: no event", test.key)
		}
	}
}

// flush takes what is there.
func flush(r *source.Reader) {
	for r.Queued() > 0 {
		_, _ = r.Next(context.Background())
	}
}

// tells reports whether an event with the key comes within some seconds.
func tells(r *source.Reader, key string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for {
		it, err := r.Next(ctx)
		if err != nil {
			return false
		}
		if it.Event == nil {
			continue
		}
		for _, k := range it.Event.Keys() {
			if string(k) == key {
				return true
			}
		}
	}
}
