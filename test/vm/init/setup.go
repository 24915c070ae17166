package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// mount mounts the kernel's file systems and takes the console as standard input and output.
func (m *machine) mount() {
	for _, f := range []struct{ source, target, kind string }{
		{"proc", "/proc", "proc"},
		{"sys", "/sys", "sysfs"},
		{"dev", "/dev", "devtmpfs"},
		{"securityfs", "/sys/kernel/security", "securityfs"},
		{"tmpfs", "/tmp", "tmpfs"},
	} {
		if err := os.MkdirAll(f.target, 0o755); err != nil {
			m.problem("%v", err)
		}
		// The kernel mounts devtmpfs itself in some configurations: EBUSY means that it is there.
		if err := unix.Mount(f.source, f.target, f.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			m.problem("mount %s: %v", f.target, err)
		}
	}
	if c, err := os.OpenFile("/dev/console", os.O_RDWR, 0); err == nil {
		for fd := range 3 {
			_ = unix.Dup2(int(c.Fd()), fd)
		}
	}
}

// mountEFI mounts the firmware variables, which need their module first.
func (m *machine) mountEFI() {
	if err := unix.Mount("efivarfs", "/sys/firmware/efi/efivars", "efivarfs", 0, ""); err != nil {
		m.problem("mount efivarfs: %v", err)
	}
}

// loadModules loads the modules in dir in the order of their names.
func (m *machine) loadModules(dir string) {
	files, err := filepath.Glob(dir + "/*.ko")
	if err != nil {
		m.problem("%v", err)
	}
	slices.Sort(files)
	for _, f := range files {
		if err := loadModule(f, ""); err != nil && !errors.Is(err, unix.EEXIST) {
			m.problem("load %s: %v", f, err)
			continue
		}
		m.hello.Modules = append(m.hello.Modules, filepath.Base(f))
	}
	say("%d modules loaded", len(m.hello.Modules))
}

func loadModule(path, params string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), params, 0)
}

// imaRules hands the product's rules to IMA when the initrd brings some.
//
// The kernel takes one rule with each write, and the whole policy when the file is closed; afterwards it takes no other.
func (m *machine) imaRules(rules, policy string) {
	b, err := os.ReadFile(rules)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		m.problem("read IMA rules: %v", err)
		return
	}
	f, err := os.OpenFile(policy, os.O_WRONLY, 0)
	if err != nil {
		m.problem("open IMA policy: %v", err)
		return
	}
	for line := range strings.Lines(string(b)) {
		rule := strings.TrimSpace(line)
		if rule == "" || strings.HasPrefix(rule, "#") {
			continue
		}
		if _, err := f.WriteString(rule + "\n"); err != nil {
			m.problem("IMA rule %q: %v", rule, err)
			continue
		}
		m.hello.IMARules = append(m.hello.IMARules, rule)
	}
	if err := f.Close(); err != nil {
		m.problem("close IMA policy: %v", err)
	}
	say("%d IMA rules set", len(m.hello.IMARules))
}

// setClock sets the system clock from the real-time clock: certificates need the time of day.
func (m *machine) setClock(rtc string) {
	f, err := os.Open(rtc)
	if err != nil {
		m.problem("clock: %v", err)
		return
	}
	defer f.Close()
	t, err := unix.IoctlGetRTCTime(int(f.Fd()))
	if err != nil {
		m.problem("clock: read %s: %v", rtc, err)
		return
	}
	tv := unix.Timeval{Sec: rtcUnix(t)}
	if err := unix.Settimeofday(&tv); err != nil {
		m.problem("clock: set: %v", err)
	}
}
