package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"touchstone.dev/touchstone/test/vm/control"
)

// waitForJob finds the job disk by its serial number and reads the job.
func waitForJob(limit time.Duration) (*control.Job, error) {
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		if dev := diskWithSerial("/sys/block", control.DiskSerial); dev != "" {
			f, err := os.Open(filepath.Join("/dev", dev))
			if err != nil {
				return nil, err
			}
			defer f.Close()
			return control.ReadJob(f)
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("no disk with serial %q appeared within %v", control.DiskSerial, limit)
		}
	}
}

// diskWithSerial returns the name of the virtio disk below sys with that serial number, or "".
func diskWithSerial(sys, serial string) string {
	files, _ := filepath.Glob(filepath.Join(sys, "vd*", "serial"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && strings.TrimSpace(string(b)) == serial {
			return filepath.Base(filepath.Dir(f))
		}
	}
	return ""
}

// writeFile writes a file and the folders it needs. An existing file is replaced, not overwritten: it may be a running program.
func writeFile(path string, data []byte, mode uint32) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if strings.HasPrefix(path, "/sys/") || strings.HasPrefix(path, "/proc/") {
		return os.WriteFile(path, data, 0)
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, os.FileMode(mode).Perm()); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// rtcUnix converts what the real-time clock says (UTC) to seconds since 1970.
func rtcUnix(t *unix.RTCTime) int64 {
	return time.Date(int(t.Year)+1900, time.Month(t.Mon+1), int(t.Mday), int(t.Hour), int(t.Min), int(t.Sec), 0, time.UTC).Unix()
}
