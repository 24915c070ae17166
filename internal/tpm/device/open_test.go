package device

import (
	"encoding/hex"
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOpenRefuses(t *testing.T) {
	dir, err := os.MkdirTemp("", "tpm") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	file, dead := filepath.Join(dir, "file"), filepath.Join(dir, "dead")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{filepath.Join(dir, "none"), "unix:" + filepath.Join(dir, "none"), file, "unix:" + file, "unix:" + dead} {
		if dev, err := Open(address); !errors.Is(err, ErrAbsent) {
			t.Errorf("Open(%s): got %v, %v, want %v", address, dev, err, ErrAbsent)
		}
	}
	if dev, err := Open("/dev/null"); err == nil {
		t.Errorf("Open(/dev/null): got %v, want an error", dev)
	}
}

// TestSocketBusy has a socket that takes connections and never answers, as swtpm does while it serves another process.
func TestSocketBusy(t *testing.T) {
	dir, err := os.MkdirTemp("", "tpm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	link := &socket{path: path, timeout: 20 * time.Millisecond}
	if _, err := link.Send(make([]byte, 12)); !errors.Is(explain("unix:"+path, err), ErrBusy) {
		t.Errorf("Send: got %v, want %v", explain("unix:"+path, err), ErrBusy)
	}
}

func TestExplain(t *testing.T) {
	for _, tt := range []struct {
		err, want error
	}{
		{syscall.ENOENT, ErrAbsent}, {syscall.ENODEV, ErrAbsent}, {syscall.ECONNREFUSED, ErrAbsent},
		{syscall.EACCES, ErrPermission}, {syscall.EPERM, ErrPermission}, {syscall.EBUSY, ErrBusy},
	} {
		err := &os.PathError{Op: "open", Path: "/dev/tpm0", Err: tt.err}
		if got := explain("/dev/tpm0", err); !errors.Is(got, tt.want) || !errors.Is(got, tt.err) {
			t.Errorf("explain(%v): got %v, want %v", tt.err, got, tt.want)
		}
	}
}
