package demo

import (
	"context"
	"log/slog"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/assettag"
	"touchstone.dev/touchstone/internal/result"
	"touchstone.dev/touchstone/internal/swtpm/machine"
	"touchstone.dev/touchstone/internal/tpm/device"
	"touchstone.dev/touchstone/test/boots"
)

// tagStage is AIAS with two workers whose agents run, all real: software TPMs, TLS, database.
type tagStage struct {
	t       *testing.T
	ctx     context.Context
	aias    *aias
	workers []*worker
}

func newTagStage(t *testing.T) *tagStage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	good, err := machine.Read(boots.Files, "corpus/good", false)
	if err != nil {
		t.Fatal(err)
	}
	s := &tagStage{t: t, ctx: ctx}
	ekCA := filepath.Join(dir, "ek-ca")
	for _, name := range []string{"worker-1", "worker-2"} {
		w := newWorker(dir, name, ekCA, log)
		if err := w.boot(ctx, good); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := w.close(); err != nil {
				t.Error(err)
			}
		})
		s.workers = append(s.workers, w)
	}
	if s.aias, err = startAIAS(ctx, filepath.Join(dir, "aias"), ekCA, log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.aias.stop(); err != nil {
			t.Error(err)
		}
	})
	for _, w := range s.workers {
		token, err := s.aias.token(ctx, w.Name)
		if err == nil {
			err = w.join(s.aias, token)
		}
		if err == nil {
			err = w.start(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, w := range s.workers {
		s.await(w, "the first attestation", func(r *result.Result) bool { return r.Trusted })
	}
	return s
}

// await waits for a result of a worker, verified as a Relying Party does, and returns how long that took.
func (s *tagStage) await(w *worker, what string, want func(*result.Result) bool) time.Duration {
	s.t.Helper()
	start := time.Now()
	jwks, err := s.aias.client.JWKS(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	for last := ""; ; time.Sleep(20 * time.Millisecond) {
		if r, err := s.aias.client.Result(s.ctx, w.Name); err == nil {
			got, err := result.Verify(r.Result, jwks, result.Expectation{Node: w.Name, Now: time.Now()})
			if err != nil {
				s.t.Fatal(err)
			}
			if want(got) {
				return time.Since(start)
			}
			last = assettag.Text(got.Tags) + " " + got.Levels[4].Reason
		}
		if s.ctx.Err() != nil {
			s.t.Fatalf("%s on %s: never came; last: %s; agent: %v", what, w.Name, last, w.failure())
		}
	}
}

func (s *tagStage) set(w *worker, tags map[string]string) {
	s.t.Helper()
	if _, err := s.aias.client.SetTags(s.ctx, w.Name, tags); err != nil {
		s.t.Fatal(err)
	}
}

// nv opens the TPM of a worker as root on it can.
func (s *tagStage) nv(w *worker, use func(*device.TPM) error) {
	s.t.Helper()
	dev, err := device.Open(w.Address())
	if err == nil {
		err = use(dev)
	}
	if err == nil {
		err = dev.Close()
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// record reads what a worker's TPM holds.
func (s *tagStage) record(w *worker) (b []byte) {
	s.t.Helper()
	s.nv(w, func(d *device.TPM) (err error) { b, err = d.NVRead(assettag.DefaultIndex); return err })
	return b
}

func has(tags map[string]string) func(*result.Result) bool {
	return func(r *result.Result) bool { return r.Trusted && maps.Equal(r.Tags, tags) }
}

func failsWith(text string) func(*result.Result) bool {
	return func(r *result.Result) bool {
		return !r.Trusted && len(r.Tags) == 0 && r.Levels[4].Status == appraisal.Fail && strings.Contains(r.Levels[4].Reason, text)
	}
}

// TestAssetTags goes the whole way of an asset tag with two workers: set, proven within seconds, copied, rolled back, mended, taken away.
func TestAssetTags(t *testing.T) {
	s := newTagStage(t)
	one, two := s.workers[0], s.workers[1]
	munich, berlin := map[string]string{"country": "de", "site": "muc"}, map[string]string{"country": "de", "site": "ber"}

	s.set(one, munich)
	took := s.await(one, "tags proven", has(munich))
	t.Logf("from `tag set` to a result with proven tags: %v", took)
	if took > 5*time.Second {
		t.Errorf("from `tag set` to a result with proven tags: %v, want a few seconds at most", took)
	}
	old := s.record(one)
	s.set(one, berlin)
	s.await(one, "what does not change stays", has(map[string]string{"country": "de"}))
	s.await(one, "changed tags proven", has(berlin))
	s.set(two, berlin)
	s.await(two, "tags of the other worker", has(berlin))

	// The attacker has root on a worker. SIGUSR1, what Ask is to an agent, makes it attest before its timer.
	write := func(w *worker, record []byte) {
		s.nv(w, func(d *device.TPM) error { return d.NVStore(assettag.DefaultIndex, assettag.Attributes, record, nil) })
		w.ask()
	}
	write(two, s.record(one))
	s.await(two, "copied tag", failsWith("issued for another worker"))
	two.ask()
	s.await(two, "mended by the agent", has(berlin))
	write(one, old)
	s.await(one, "rolled back tag", failsWith("an old one of this worker"))
	one.ask()
	s.await(one, "mended by the agent", has(berlin))

	s.nv(one, func(d *device.TPM) error {
		return d.NVDelete(assettag.DefaultIndex, assettag.Attributes, assettag.Size, nil)
	})
	one.ask()
	s.await(one, "removed index", func(r *result.Result) bool {
		return r.Trusted && len(r.Tags) == 0 && r.Levels[4].Status == appraisal.Warn
	})
	one.ask()
	s.await(one, "written again", has(berlin))

	if _, err := s.aias.client.ClearTags(s.ctx, one.Name); err != nil {
		t.Fatal(err)
	}
	s.await(one, "taken away", func(r *result.Result) bool { return r.Trusted && len(r.Tags) == 0 })
	gone := func() bool {
		dev, err := device.Open(one.Address())
		if err != nil {
			t.Fatal(err)
		}
		defer dev.Close() //nolint:errcheck // nothing is buffered
		_, err = dev.NVRead(assettag.DefaultIndex)
		return err != nil
	}
	for !gone() {
		if s.ctx.Err() != nil {
			t.Fatal("the index is still there after the tags were taken away")
		}
		time.Sleep(50 * time.Millisecond)
	}
	states, err := s.aias.client.Tags(s.ctx, two.Name)
	if err != nil || !states.Proven || states.Serial != 1 {
		t.Errorf("tags of %s: got %+v, %v, want its own, proven", two.Name, states, err)
	}
}
