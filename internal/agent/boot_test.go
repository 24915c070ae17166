package agent

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/tpm"
)

// disks is an answer of AIAS about the disks.
func (w *world) disks(d *protocol.DiskAnswer) (*protocol.Attestation, error) {
	return &protocol.Attestation{Next: w.link.fresh(), Expires: time.Now().Add(time.Minute), Disks: d}, nil
}

var refusedDisk = &protocol.DiskAnswer{
	Missing:  []string{"level 4 is fail (kernel command line: init=/bin/sh)"},
	Findings: []protocol.DiskFinding{{Level: 4, Rule: "kernel.command-line", Message: "init=/bin/sh\x1b[2J is forbidden", Remedy: "take it out"}},
}

func TestBootAttest(t *testing.T) {
	for _, tc := range []struct {
		name   string
		again  time.Duration
		change func(*world)
		next   func(w *world, n int) (*protocol.Attestation, error)
		err    error
		took   time.Duration // at most
		said   []string
		tries  int // attestations at least
	}{
		{name: "opens", next: func(w *world, _ int) (*protocol.Attestation, error) { return w.disks(&protocol.DiskAnswer{Open: true}) },
			took: time.Second, said: []string{"AIAS opens the disks of worker-1"}, tries: 1},
		{name: "refuses", next: func(w *world, _ int) (*protocol.Attestation, error) { return w.disks(refusedDisk) },
			err: ErrDisksClosed, took: time.Second, tries: 1,
			said: []string{"level 4 is fail (kernel command line: init=/bin/sh)", "level 4, kernel.command-line: init=/bin/sh[2J is forbidden", "what to do: take it out"}},
		{name: "refuses until an operator does something", again: 10 * time.Second,
			next: func(w *world, n int) (*protocol.Attestation, error) {
				if n < 3 {
					return w.disks(refusedDisk)
				}
				return w.disks(&protocol.DiskAnswer{Open: true})
			}, took: 21 * time.Second, said: []string{"level 4 is", "opens the disks"}, tries: 3},
		{name: "refuses to the end", again: 10 * time.Second, next: func(w *world, _ int) (*protocol.Attestation, error) { return w.disks(refusedDisk) },
			err: ErrDisksClosed, took: 30 * time.Second, tries: 3},
		{name: "knows no disk", next: func(w *world, _ int) (*protocol.Attestation, error) { return w.disks(nil) },
			err: ErrDisksClosed, took: time.Second, said: []string{"touchstone disk bind worker-1"}, tries: 1},
		{name: "down", next: func(*world, int) (*protocol.Attestation, error) { return nil, errors.New("connection refused") },
			err: ErrNoVerdict, took: 30 * time.Second, said: []string{"not attested yet: connection refused"}, tries: 5},
		{name: "comes up", next: func(w *world, n int) (*protocol.Attestation, error) {
			if n < 4 {
				return nil, fmt.Errorf("reach AIAS: %w", syscall.ENETUNREACH)
			}
			return w.disks(&protocol.DiskAnswer{Open: true})
		}, took: 12 * time.Second, said: []string{"waiting for the network", "opens"}, tries: 4},
		{name: "knows the node no more", next: func(*world, int) (*protocol.Attestation, error) {
			return nil, &Refusal{Problem: protocol.Problem{Title: "this node is not enrolled", Status: http.StatusForbidden}}
		}, err: ErrNoVerdict, took: 30 * time.Second, said: []string{"this node is not enrolled"}, tries: 2},
		{name: "not enrolled", change: func(w *world) { w.cfg.StateDir = t.TempDir() }, err: ErrNotEnrolled, took: time.Second, said: []string{"not enrolled"}},
		{name: "TPM fails", change: func(w *world) { w.tpm.fail = errors.New("TPM is in failure mode") }, err: ErrNoVerdict, took: 30 * time.Second,
			said: []string{"TPM is in failure mode"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.wait.max = 3 * time.Second
				if tc.change != nil {
					tc.change(w)
				}
				if tc.next != nil {
					w.link.next = func(n int) (*protocol.Attestation, error) { return tc.next(w, n) }
				}
				var console bytes.Buffer
				start := time.Now()
				err := w.BootAttest(t.Context(), BootOptions{Wait: 30 * time.Second, Again: tc.again, Console: &console})
				if took := time.Since(start); took > tc.took {
					t.Errorf("BootAttest: took %v, want %v at most", took, tc.took)
				}
				if !errors.Is(err, tc.err) {
					t.Errorf("BootAttest: got %v, want %v", err, tc.err)
				}
				for _, text := range tc.said {
					if n := strings.Count(console.String(), text); n != 1 {
						t.Errorf("console: got %q, want %q once", console.String(), text)
					}
				}
				if strings.ContainsRune(console.String(), '\x1b') {
					t.Errorf("console: got %q, want nothing that controls a terminal", console.String())
				}
				if n := w.link.count(); n < tc.tries {
					t.Errorf("attestations: got %d, want %d at least", n, tc.tries)
				}
				if w.opened != w.tpm.closed {
					t.Errorf("TPM opened %d times and closed %d times", w.opened, w.tpm.closed)
				}
			})
		})
	}
}

// TestBootAttestHangs: a TPM driver that never answers does not hold up the boot for longer than it may.
func TestBootAttestHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tpm.hang = make(chan struct{})
		defer close(w.tpm.hang)
		start := time.Now()
		err := w.BootAttest(t.Context(), BootOptions{Wait: 30 * time.Second, Console: new(bytes.Buffer)})
		if took := time.Since(start); !errors.Is(err, ErrNoVerdict) || took > 33*time.Second {
			t.Errorf("BootAttest: got %v after %v, want %v after about 30s", err, took, ErrNoVerdict)
		}
	})
}

func TestCloseLatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.wait.max = 3 * time.Second
		away := true
		w.link.next = func(int) (*protocol.Attestation, error) {
			if away {
				return nil, errors.New("connection refused")
			}
			return nil, nil
		}
		o := BootOptions{Wait: 10 * time.Second, Console: new(bytes.Buffer)}
		if err := w.CloseLatch(t.Context(), o); err == nil || !strings.Contains(err.Error(), "AIAS not yet") {
			t.Errorf("CloseLatch with AIAS away: got %v, want to be told", err)
		}
		first := bytes.Clone(w.tpm.bank.Values[tpm.LatchPCR])
		if got := tpm.Latch(tpm.AlgSHA256, first); got != tpm.LatchClosed {
			t.Errorf("latch: got %q, want it closed although AIAS is away", got)
		}
		away = false
		if err := w.CloseLatch(t.Context(), o); err != nil {
			t.Errorf("CloseLatch again: %v", err)
		}
		if !bytes.Equal(first, w.tpm.bank.Values[tpm.LatchPCR]) {
			t.Error("a latch that was closed was extended again: AIAS would not recognise it")
		}
	})
}

// TestBootIdentity: what an initramfs keeps is the enrolment with a certificate of its own; the one of the running agent stays.
func TestBootIdentity(t *testing.T) {
	w := newWorld(t)
	id, err := LoadIdentity(w.cfg.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bootIdentity(t.Context(), w.link, w.tpm, id); err == nil {
		t.Error("bootIdentity while AIAS gives none: got nil, want an error")
	}
	long := testPEM(t, w.tpm.TLSSigner(), time.Now(), time.Now().Add(400*24*time.Hour))
	w.link.renewal = &protocol.Renewal{Certificate: long}
	boot, err := bootIdentity(t.Context(), w.link, w.tpm, id)
	if err != nil || boot.Certificate != long || boot.CA != id.CA || boot.Node != id.Node || id.Certificate == long {
		t.Errorf("bootIdentity: got %+v, %v, want the long certificate in a copy", boot, err)
	}
	w.link.renewal = &protocol.Renewal{Certificate: "no certificate"}
	if _, err := bootIdentity(t.Context(), w.link, w.tpm, id); err == nil {
		t.Error("bootIdentity with no certificate: got nil, want an error")
	}
}
