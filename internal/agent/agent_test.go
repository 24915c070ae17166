package agent

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
)

// run lets the agent run for d of imitated time, with act called in between, and returns what Run returned.
func (w *world) run(d time.Duration, act func()) error {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	if act != nil {
		act()
	}
	time.Sleep(d)
	cancel()
	return <-done
}

func TestTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if err := w.run(10*time.Minute, nil); err != nil {
			t.Errorf("Run: %v", err)
		}
		// One at the start, then every 54 to 66 seconds.
		if n := w.link.count(); n < 10 || n > 12 {
			t.Errorf("attestations in ten minutes: got %d, want 10 to 12", n)
		}
		if w.link.challenges != 1 {
			t.Errorf("challenges asked for: got %d, want 1: each answer carries the next", w.link.challenges)
		}
		if w.opened != 1 || w.tpm.closed != 1 {
			t.Errorf("TPM opened %d times and closed %d times, want once each", w.opened, w.tpm.closed)
		}
	})
}

func TestChangesAreAttestedAtOnce(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*world)
		within time.Duration
		want   Trigger
	}{
		{"ima", func(w *world) { w.host.grow() }, time.Second, TriggerIMA},
		{"module", func(w *world) { w.host.mu.Lock(); w.host.modules++; w.host.mu.Unlock() }, 2 * time.Second, TriggerModule},
		{"asked", func(w *world) { w.Ask() }, time.Millisecond, TriggerAsked},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				var changed time.Time
				err := w.run(5*time.Second, func() {
					time.Sleep(10 * time.Second)
					changed = time.Now()
					tc.change(w)
				})
				if err != nil || len(w.reports) != 2 {
					t.Fatalf("Run: %v, %d attestations, want 2", err, len(w.reports))
				}
				if r := w.reports[1]; r.Trigger != tc.want || w.link.times[1].Sub(changed) > tc.within {
					t.Errorf("second attestation: %q after %v, want %q within %v", r.Trigger, w.link.times[1].Sub(changed), tc.want, tc.within)
				}
			})
		})
	}
}

// A worker whose list never rests attests all the same, and not more often than minGap.
func TestBusyList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if err := w.run(0, func() {
			for range 20 * 100 { // 20 s, an entry every 10 ms
				time.Sleep(10 * time.Millisecond)
				w.host.grow()
			}
		}); err != nil {
			t.Errorf("Run: %v", err)
		}
		if n := w.link.count(); n < 12 || n > 21 {
			t.Errorf("attestations in 20 s: got %d, want 12 to 21", n)
		}
	})
}

func TestAIASAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		away := time.Now().Add(time.Hour)
		w.link.next = func(int) (*protocol.Attestation, error) {
			if time.Now().Before(away) {
				return nil, errors.New("connection refused")
			}
			return nil, nil
		}
		if err := w.run(time.Hour+5*time.Minute, nil); err != nil {
			t.Errorf("Run: %v", err)
		}
		last := w.reports[len(w.reports)-1]
		if last.Err != nil {
			t.Errorf("last attestation: %v, want a good one after AIAS came back", last.Err)
		}
		// Waits are 30 s on average once the bound is reached.
		if n := len(w.reports); n < 60 || n > 240 {
			t.Errorf("tries in an hour: got %d, want about 120", n)
		}
		if w.opened != 1 {
			t.Errorf("TPM opened %d times, want once: the network is not its fault", w.opened)
		}
	})
}

func TestConflictGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		fresh := testChallenge()
		fresh.Nonce = []byte("fresh")
		w.link.next = func(n int) (*protocol.Attestation, error) {
			if n == 1 {
				return nil, &Refusal{Problem: protocol.Problem{Title: "stale", Status: http.StatusConflict, Challenge: &fresh}}
			}
			return nil, nil
		}
		if err := w.run(time.Second, nil); err != nil {
			t.Errorf("Run: %v", err)
		}
		if len(w.reports) != 1 || w.reports[0].Err != nil || len(w.link.docs) != 2 {
			t.Fatalf("got %d reports and %d documents, want one good report after two documents", len(w.reports), len(w.link.docs))
		}
		if got := string(w.link.docs[1].Nonce); got != "fresh" {
			t.Errorf("second nonce: got %q, want the one of the refusal", got)
		}
	})
}

func TestConflictForeverEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		fresh := testChallenge()
		w.link.next = func(int) (*protocol.Attestation, error) {
			return nil, &Refusal{Problem: protocol.Problem{Title: "stale", Status: http.StatusConflict, Challenge: &fresh}}
		}
		if err := w.run(time.Minute, nil); err != nil {
			t.Errorf("Run: %v", err)
		}
		if n := w.link.count(); n > 200 {
			t.Errorf("documents in a minute against an AIAS that refuses all: %d", n)
		}
	})
}

func TestRetryAfterIsObeyed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.link.next = func(n int) (*protocol.Attestation, error) {
			if n == 1 {
				return nil, &Refusal{Problem: protocol.Problem{Title: "busy", Status: http.StatusTooManyRequests}, RetryAfter: 2 * time.Minute}
			}
			return nil, nil
		}
		if err := w.run(5*time.Minute, nil); err != nil {
			t.Errorf("Run: %v", err)
		}
		if gap := w.link.times[1].Sub(w.link.times[0]); gap < 2*time.Minute {
			t.Errorf("second try after %v, want two minutes at least", gap)
		}
	})
}

// A certificate that AIAS does not take leads to a new session: somebody may have enrolled the worker anew meanwhile.
func TestRefusedCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.link.next = func(n int) (*protocol.Attestation, error) {
			if n <= 2 {
				return nil, &Refusal{Problem: protocol.Problem{Title: "not enrolled", Status: http.StatusUnauthorized}}
			}
			return nil, nil
		}
		if err := w.run(time.Minute, nil); err != nil {
			t.Errorf("Run: %v", err)
		}
		if w.opened != 3 || w.reports[len(w.reports)-1].Err != nil {
			t.Errorf("sessions: got %d, last report %v, want the third to succeed", w.opened, w.reports[len(w.reports)-1].Err)
		}
	})
}

func TestTPMFailsAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tpm.fail = errors.New("lost")
		if err := w.run(time.Minute, func() {
			time.Sleep(5 * time.Second)
			w.tpm.mu.Lock()
			w.tpm.fail = nil
			w.tpm.mu.Unlock()
		}); err != nil {
			t.Errorf("Run: %v", err)
		}
		if w.opened < 2 || w.opened != w.tpm.closed {
			t.Errorf("TPM opened %d times and closed %d times, want anew after a failure", w.opened, w.tpm.closed)
		}
		if w.link.count() == 0 {
			t.Error("no attestation after the TPM came back")
		}
	})
}

// A TPM that hangs cannot be mended from inside: the agent ends, so that its supervisor starts it anew.
func TestTPMHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tpm.hang = make(chan struct{})
		err := w.run(time.Hour, nil)
		if !errors.Is(err, errStuck) {
			t.Errorf("Run: got %v, want %v", err, errStuck)
		}
		close(w.tpm.hang)
	})
}

func TestNotEnrolled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.StateDir = t.TempDir()
		if err := w.run(time.Second, nil); !errors.Is(err, ErrNotEnrolled) {
			t.Errorf("Run without token: got %v, want %v", err, ErrNotEnrolled)
		}
	})
}

// With a token file the agent waits for the file and enrols by itself.
func TestEnrolsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id, err := LoadIdentity(w.cfg.StateDir)
		if err != nil {
			t.Fatal(err)
		}
		w.cfg.StateDir = t.TempDir()
		w.cfg.TokenFile = filepath.Join(t.TempDir(), "token")
		var tokens []string
		first := testChallenge()
		first.Nonce, first.Expires = []byte("from the enrolment"), time.Now().Add(time.Hour)
		w.enrolWith = func(_ context.Context, _ TPM, token string, _ *Identity) (*Identity, *protocol.Challenge, error) {
			tokens = append(tokens, token)
			return id, &first, id.Save(w.cfg.StateDir)
		}
		if err := w.run(2*time.Minute, func() {
			time.Sleep(10 * time.Second)
			if err := os.WriteFile(w.cfg.TokenFile, []byte("secret\n"), 0o600); err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Errorf("Run: %v", err)
		}
		if len(tokens) != 1 || tokens[0] != "secret" {
			t.Errorf("enrolled with %q, want once with \"secret\"", tokens)
		}
		if w.link.count() == 0 || string(w.link.docs[0].Nonce) != "from the enrolment" {
			t.Error("the first Evidence does not answer the challenge of the enrolment")
		}
	})
}

// A worker that was away until its certificate ended enrols anew when it has a token, and waits for somebody to do it when it has none.
func TestExpiredCertificate(t *testing.T) {
	for _, token := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			old, err := LoadIdentity(w.cfg.StateDir)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(25 * time.Hour) // the certificate lives for 24 hours
			fresh := *old
			fresh.Certificate = testPEM(t, w.tpm.TLSSigner(), time.Now(), time.Now().Add(24*time.Hour))
			if token {
				w.cfg.TokenFile = filepath.Join(t.TempDir(), "token")
				if err := os.WriteFile(w.cfg.TokenFile, []byte("secret"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			w.enrolWith = func(context.Context, TPM, string, *Identity) (*Identity, *protocol.Challenge, error) {
				return &fresh, nil, fresh.Save(w.cfg.StateDir)
			}
			if err := w.run(5*time.Minute, func() {
				time.Sleep(time.Minute)
				if n := w.link.count(); (n > 0) != token {
					t.Errorf("with token %v: %d attestations, want some only with a token", token, n)
				}
				if err := fresh.Save(w.cfg.StateDir); err != nil { // `trust-agent enrol --force`
					t.Error(err)
				}
			}); err != nil {
				t.Errorf("Run: %v", err)
			}
			if w.link.count() == 0 {
				t.Error("no attestation after the enrolment was renewed by hand")
			}
		})
	}
}

func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		start := time.Now()
		dialled := 0
		w.dial = func(*Identity, TPM) (Link, error) { dialled++; return w.link, nil }
		fresh := testPEM(t, w.tpm.TLSSigner(), start.Add(16*time.Hour), start.Add(40*time.Hour))
		if err := w.run(17*time.Hour, func() {
			time.Sleep(15 * time.Hour)
			if w.link.renewals != 0 {
				t.Error("renewed before two thirds of the life time")
			}
			w.link.renewal = &protocol.Renewal{Certificate: fresh, CA: fresh, Expires: start.Add(40 * time.Hour)}
		}); err != nil {
			t.Errorf("Run: %v", err)
		}
		if w.link.renewals != 1 || dialled != 2 {
			t.Errorf("renewed %d times and dialled %d times, want 1 and 2", w.link.renewals, dialled)
		}
		if id, err := LoadIdentity(w.cfg.StateDir); err != nil || id.Certificate != fresh {
			t.Errorf("LoadIdentity after renewal: %v, want the new certificate", err)
		}
	})
}
