package record_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/audit/record"
)

// logOf makes a log of n events as auditd 3.0.9 writes them for one watched open, the given time apart.
func logOf(n int, apart time.Duration) string {
	var b strings.Builder
	at := time.Unix(1795528831, 0)
	for i := range n {
		id := record.ID{Sec: at.Unix(), Milli: uint16(at.Nanosecond() / 1e6), Serial: uint64(i + 1)}.String()
		fmt.Fprintf(&b, `type=SYSCALL msg=audit(%s): arch=c000003e syscall=257 success=yes exit=3 a0=ffffff9c a1=7ffee8ac8d4a a2=0 a3=0 items=1 ppid=22969 pid=%d auid=4294967295 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=(none) ses=4294967295 comm="load" exe="/usr/local/bin/load" key="load"`+"\x1d"+`ARCH=x86_64 SYSCALL=openat AUID="unset" UID="root" GID="root" EUID="root" SUID="root" FSUID="root" EGID="root" SGID="root" FSGID="root"`+"\n", id, 20000+i%1000)
		fmt.Fprintf(&b, "type=CWD msg=audit(%s): cwd=\"/srv\"\n", id)
		fmt.Fprintf(&b, `type=PATH msg=audit(%s): item=0 name="/srv/watched/file" inode=12329634 dev=fe:00 mode=0100644 ouid=0 ogid=0 rdev=00:00 nametype=NORMAL cap_fp=0 cap_fi=0 cap_fe=0 cap_fver=0 cap_frootid=0`+"\x1d"+`OUID="root" OGID="root"`+"\n", id)
		fmt.Fprintf(&b, "type=PROCTITLE msg=audit(%s): proctitle=6C6F6164002F7372762F776174636865642F66696C65\n", id)
		at = at.Add(apart)
	}
	return b.String()
}

// burst is a log at the most that auditd writes, about 12,000 events a second.
func burst(n int) string { return logOf(n, 83*time.Microsecond) }

// densities are the logs of the benchmark: the same bytes but for the time stamps.
var densities = []struct {
	name  string
	apart time.Duration
}{{"burst", 83 * time.Microsecond}, {"sparse", 10 * time.Millisecond}}

// events is how many the logs of the benchmark hold. The more, the slower ausearch is at burst density: 3,000 a second with 60,000.
const events = 30000

// BenchmarkReader reads a log from a file, at both densities, with all events' paths looked at.
func BenchmarkReader(b *testing.B) {
	for _, d := range densities {
		file := filepath.Join(b.TempDir(), "audit.log")
		if err := os.WriteFile(file, []byte(logOf(events, d.apart)), 0o600); err != nil {
			b.Fatal(err)
		}
		b.Run(d.name, func(b *testing.B) {
			info, _ := os.Stat(file)
			b.SetBytes(info.Size())
			b.ReportAllocs()
			before := cpu(b)
			for b.Loop() {
				n := 0
				c := record.NewCoalescer(record.Options{Emit: func(e *record.Event) {
					if keys := e.Records[0].Type == record.TypeSyscall; keys && !e.Partial {
						n++
					}
				}})
				readAll(b, file, c)
				if n != events {
					b.Fatalf("got %d whole events, want %d", n, events)
				}
			}
			b.ReportMetric(float64(events*b.N)/(cpu(b)-before).Seconds(), "events/cpu-s")
		})
	}
}

// cpu is what this process took of its cores so far: a core's worth of work, however busy the machine is.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func readAll(b *testing.B, file string, c *record.Coalescer) {
	f, err := os.Open(file)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 256<<10)
	for {
		n, err := f.Read(buf)
		c.Write(buf[:n])
		if err != nil {
			break
		}
	}
	c.Flush()
}

// BenchmarkAusearch is what Debian's ausearch takes for the same bytes: `ausearch --raw` of all events.
func BenchmarkAusearch(b *testing.B) {
	for _, d := range densities {
		b.Run(d.name, func(b *testing.B) {
			file := filepath.Join(b.TempDir(), "audit.log")
			if err := os.WriteFile(file, []byte(logOf(events, d.apart)), 0o600); err != nil {
				b.Fatal(err)
			}
			var user time.Duration
			for b.Loop() {
				cmd := exec.Command("ausearch", "--raw", "-if", file)
				out, err := cmd.Output()
				if err != nil {
					b.Fatalf("ausearch (apt-get install auditd): %v", err)
				}
				if n := bytes.Count(out, []byte("type=SYSCALL")); n != events {
					b.Fatalf("ausearch gave %d events, want %d", n, events)
				}
				user += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			}
			b.ReportMetric(float64(events*b.N)/user.Seconds(), "events/cpu-s")
		})
	}
}
