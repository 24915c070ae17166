package authority

import (
	"crypto/sha256"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/tpm"
)

// TestDiskInEarlyBoot: a real boot attests before its disks are open, with the real verifier. The answer says whether they open and what was found; a
// latch that closes ends it for the boot, also over a restart of AIAS.
func TestDiskInEarlyBoot(t *testing.T) {
	w := realWorld(t)
	url := w.disks()
	m := w.enrolled("worker-1")
	w.bindDisk(url, "worker-1", protocol.DiskPolicy{Mode: "attested", Conditions: []byte(`{"levels":[1,2,3,4],"softwareTPM":"Allow"}`)})
	w.clock.Advance(16 * time.Minute) // binding is over
	kid := w.disk("worker-1").Keys[0].Thumbprint
	boot := func(name string, latch ...byte) *protocol.Attestation {
		t.Helper()
		if err := w.call(m.http, http.MethodGet, protocol.PathChallenge, nil, &m.next); err != nil {
			t.Fatal(err)
		}
		bank := m.booted(name)
		bank.Values[tpm.LatchPCR] = make([]byte, sha256.Size)
		if latch != nil {
			bank.Values[tpm.LatchPCR] = latch
		}
		a, err := m.send(m.quoted(m.next, bank))
		if err != nil || a.Disks == nil {
			t.Fatalf("boot %s: got %+v, %v; want to be told about the disks", name, a, err)
		}
		return a
	}
	want := func(when string, a *protocol.Attestation, open bool, why string) {
		t.Helper()
		if d := a.Disks; d.Open != open || !strings.Contains(strings.Join(d.Missing, "; "), why) {
			t.Errorf("%s: got %+v, want open %v, %q", when, d, open, why)
		}
		status := http.StatusForbidden
		if open {
			status = http.StatusOK
		}
		if got := post(t, url+"/n/worker-1/rec/"+kid, point(t)); got != status {
			t.Errorf("%s: POST rec: got %d, want %d", when, got, status)
		}
	}
	m.clock.ResetCount++
	want("good boot", boot("good"), true, "")
	m.clock.ResetCount++
	a := boot("cmdline")
	want("command line changed", a, false, "level 4 is fail")
	if !slices.ContainsFunc(a.Disks.Findings, func(f protocol.DiskFinding) bool {
		return f.Level == 4 && f.Rule == "kernel.command-line" && f.Message != "" && f.Remedy != ""
	}) {
		t.Errorf("command line changed: findings are %+v, want that of kernel.command-line with its remedy", a.Disks.Findings)
	}
	m.clock.ResetCount++
	want("good boot again", boot("good"), true, "")
	event := sha256.Sum256([]byte(tpm.LatchEvent))
	want("latch closed", boot("good", sha(append(make([]byte, sha256.Size), event[:]...))...), false, "open already")
	w.restart()
	m.connect()
	url = w.disks()
	want("latch forgotten", boot("good"), false, "open already")
	m.clock.ResetCount++
	want("PCR 15 of something else", boot("good", sha([]byte("systemd"))...), false, "by something else")
}

// TestNoListNoPods: Evidence of a boot without an IMA list, as an initramfs may have none, never makes a node trusted, whatever its disks do.
func TestNoListNoPods(t *testing.T) {
	w := realWorld(t)
	m := w.enrolled("worker-1")
	w.bindDisk(w.disks(), "worker-1", protocol.DiskPolicy{Mode: "attested", Conditions: []byte(`{"levels":[1,2,3],"softwareTPM":"Allow"}`)})
	if err := w.call(m.http, http.MethodGet, protocol.PathChallenge, nil, &m.next); err != nil {
		t.Fatal(err)
	}
	bank := m.booted("good")
	bank.Values[10], bank.Values[tpm.LatchPCR] = make([]byte, sha256.Size), make([]byte, sha256.Size)
	m.list = nil
	a, err := m.send(m.quoted(m.next, bank))
	if err != nil || a.Trusted || a.Disks == nil || !a.Disks.Open {
		t.Fatalf("boot without IMA list: got %+v, %v; want open disks of a node that is not trusted", a, err)
	}
	for _, l := range a.Levels[3:] {
		if l.Status != "unknown" {
			t.Errorf("level %d: got %s, want unknown: programs and modules were not measured", l.Level, l.Status)
		}
	}
}
