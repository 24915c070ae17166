package detect

import (
	"bytes"
	"compress/gzip"
	"context"
	"flag"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/audit/audittest"
	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/audit/record"
	auditrules "touchstone.dev/touchstone/internal/audit/rules"
	"touchstone.dev/touchstone/internal/audit/source"
)

var recordOrdinary = flag.Bool("record", false, "do ordinary work again, and record its events (root, auditd, a Debian archive)")

const ordinaryFile = "testdata/ordinary.log.gz"

// ordinary is work of every day: packages, users, a container runtime that starts and ends, tools of an administrator.
const ordinary = `
set -x
apt-get update
apt-get install -y --reinstall hostname cron
dpkg -l >/dev/null; apt-cache policy bash; apt-get -s upgrade
useradd -m touchstone-test && echo touchstone-test:Xk29-mnq1 | chpasswd && usermod -s /bin/sh touchstone-test && groupadd touchstone-group && groupdel touchstone-group
su touchstone-test -c 'id; ls -la; cat /etc/passwd; ps aux' >/dev/null
userdel -r touchstone-test
crontab -l; ip addr; ss -tln; df -h; mount; find /etc -name '*.conf'; tar -C /etc -cf /dev/null apt; journalctl --version; modprobe -n loop
d=$(mktemp -d /run/ordinary.XXXXXX)
timeout 5 containerd --root $d/root --state $d/state --address $d/c.sock & sleep 3; ctr --address $d/c.sock version; ctr --address $d/c.sock images ls; wait
rm -rf $d
ssh-keygen -q -t ed25519 -N '' -f /run/ordinary.key; rm -f /run/ordinary.key*
python3 -c 'import hashlib, subprocess; subprocess.run(["true"])'
`

// TestOrdinaryWork: recorded work of every day raises nothing.
func TestOrdinaryWork(t *testing.T) {
	if *recordOrdinary {
		recordWork(t)
	}
	f, err := os.Open(ordinaryFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	log, err := io.ReadAll(io.LimitReader(z, 64<<20))
	if err != nil {
		t.Fatal(err)
	}
	n := shippedSet(t).NewNode()
	events := 0
	// An event each between empty lines.
	for raw := range bytes.SplitSeq(log, []byte("\n\n")) {
		if len(bytes.TrimSpace(raw)) == 0 {
			continue
		}
		e, err := record.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		events++
		for _, d := range n.Event(e, &chain.Context{Unit: "session-3.scope"}, e.ID.Time()).Detections {
			if d.Rule.Effect.Effect != None {
				t.Errorf("event %s: rule %s: %s, %v", e.ID, d.Rule.Doc.Name, d.Exe, d.Facts)
			}
		}
	}
	if events < 400 {
		t.Errorf("only %d events are recorded", events)
	}
	t.Logf("%d events", events)
}

func recordWork(t *testing.T) {
	a := audittest.Start(t, audittest.Options{})
	if _, err := auditrules.Install(t.Context(), auditrules.Auditctl, "/usr/bin/trust-agent", "", auditrules.DefaultControl); err != nil {
		t.Fatal(err)
	}
	r, err := source.Open(t.Context(), source.Config{Log: a.Log})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("/bin/bash", "-c", ordinary)
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LANG=C"}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait(); time.Sleep(2 * time.Second); done <- nil }()
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-done; <-done; cancel() }()
	ours := map[uint32]bool{uint32(cmd.Process.Pid): true} // others work on the machine, too
	var out bytes.Buffer
	for {
		it, err := r.Next(ctx)
		if err != nil {
			break
		}
		if it.Event == nil {
			continue
		}
		p, ok := it.Event.Process()
		if !ok || !ours[p.PID] && !ours[p.PPID] {
			continue
		}
		ours[p.PID] = true
		out.Write(it.Event.Raw())
		out.WriteByte('\n')
	}
	var packed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if _, err := z.Write(out.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ordinaryFile, packed.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
