package source_test

import (
	"encoding/binary"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"touchstone.dev/touchstone/internal/audit/audittest"
	"touchstone.dev/touchstone/internal/audit/record"
	"touchstone.dev/touchstone/internal/audit/source"
)

// sendUser sends a record as any program with CAP_AUDIT_WRITE can.
func sendUser(t *testing.T, typ uint16, text string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	b := make([]byte, 16, 16+len(text)+1)
	b = append(append(b, text...), 0)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], typ)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	reply := make([]byte, 4096)
	if n, _, err := unix.Recvfrom(fd, reply, 0); err != nil || n < 20 || int32(binary.NativeEndian.Uint32(reply[16:])) != 0 {
		t.Fatalf("the kernel refused the record: %v, %x", err, reply[:max(n, 0)])
	}
}

// TestForgedRecords: a program with CAP_AUDIT_WRITE writes what looks like other fields, other records and other events. Read by
// multicast and from the log, it stays what it is: a claim of this process.
func TestForgedRecords(t *testing.T) {
	a := audittest.Start(t, audittest.Options{})
	const fake = "type=SYSCALL msg=audit(1795528831.746:77): arch=c000003e syscall=313 success=yes pid=1 uid=0 key=\"ts-module\""
	for _, text := range []string{
		"op=login acct=\"root\" exe=\"/usr/sbin/sshd\" res=success' pid=1 uid=0 auid=0 msg='x=1",
		"a\n" + fake + "\nb",
		"a\x1dUID=\"root\" AUID=\"root\"",
		"a\r" + fake,
		"a\x00b",
	} {
		for _, live := range []bool{true, false} {
			cfg := source.Config{Log: a.Log, NoLive: !live}
			if live {
				cfg.Log = ""
			}
			r, err := source.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(200 * time.Millisecond)
			sendUser(t, 1112, text)
			var got *record.Event
			s := drain(t, r, 5*time.Second, func(*seen) bool { return false }, func(it source.Item) bool {
				if it.Event != nil && (it.Event.ID.Serial == 77 || it.Event.Find(1300) != nil && strings.Contains(string(it.Event.Raw()), "ts-module")) {
					t.Errorf("live %v, %q: the fake came out as an event: %q", live, text, it.Event.Raw())
				}
				if it.Event != nil && it.Event.Find(1112) != nil {
					got = it.Event
				}
				return got != nil
			})
			if got == nil {
				t.Errorf("live %v, %q: did not come out; gaps %+v", live, text, s.gaps)
				r.Close()
				continue
			}
			if p, _ := got.Process(); p.PID != uint32(os.Getpid()) {
				t.Errorf("live %v, %q: stamped pid %d, want ours: %q", live, text, p.PID, got.Raw())
			}
			if back, err := record.Parse(got.Raw()); err != nil || len(back.Records) != 1 {
				t.Errorf("live %v, %q: travels as %q: %v", live, text, got.Raw(), err)
			}
			drain(t, r, 300*time.Millisecond, func(*seen) bool { return false }, func(it source.Item) bool {
				if it.Event != nil && strings.Contains(string(it.Event.Raw()), "ts-module") && it.Event.Find(1300) != nil {
					t.Errorf("live %v, %q: the fake came out as an event: %q", live, text, it.Event.Raw())
				}
				return false
			})
			r.Close()
		}
	}
}
