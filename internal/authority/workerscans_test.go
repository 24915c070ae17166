package authority

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/tpm"
)

// workerWorld judges by a policy with a compliance scan, by which tests let workers fall, and with what it says of scans of images.
func workerWorld(t testing.TB, images string) *world {
	return newWorld(t, func(w *world) {
		load := LoadFrom(filepath.Join(boots, "references"))
		policy := strings.Replace(string(bootFile(t, "policy.yaml")), "\nspec:\n",
			"\nspec:\n  runtime: {images: {"+images+"}, compliance: {mode: required, profile: xccdf_x_profile_worker}}\n", 1)
		w.loader = func([]byte) (*Snapshot, error) {
			s, err := load([]byte(policy))
			if err == nil {
				s.Roots, s.Links = w.roots, append(s.Links, w.maker.Issuer)
			}
			return s, err
		}
	})
}

// scanning is a worker that scans images.
type scanning struct {
	*machine
	bank *tpm.Bank
}

// scanning enrols a worker and makes it trusted.
func (w *world) scanning(name string) *scanning {
	w.t.Helper()
	s := &scanning{machine: w.enrolled(name)}
	s.bank = s.booted("good")
	s.judged("pass", false)
	if s.attests(); s.node().Trust != protocol.Trusted {
		w.t.Fatalf("%s: got %+v, want it trusted", name, s.node())
	}
	return s
}

func (s *scanning) attests() {
	s.w.t.Helper()
	if _, err := s.send(s.quoted(s.next, s.bank)); err != nil {
		s.w.t.Fatal(err)
	}
}

// judged sends a compliance scan of the worker in which a rule has an outcome.
func (s *scanning) judged(outcome string, trusted bool) {
	s.w.t.Helper()
	s.w.clock.Advance(time.Second)
	if s.node().Attested.IsZero() {
		s.attests()
	}
	got, err := s.report(s.scanOf(s.w.clock.Now(), "xccdf_x_rule_telnet high "+outcome))
	if err != nil || trusted && !got.Trusted {
		s.w.t.Fatalf("%s: got %+v, %v", s.name, got, err)
	}
}

func image(n string) protocol.ClaimedImage {
	return protocol.ClaimedImage{Manifest: "sha256:" + strings.Repeat("a"+n, 32), Config: "sha256:" + strings.Repeat("b"+n, 32)}
}

var scanContent = strings.Repeat("c", 64)

func (s *scanning) claim(content string, images ...protocol.ClaimedImage) protocol.ScanLease {
	s.w.t.Helper()
	var out protocol.ScanLease
	if err := s.w.call(s.http, http.MethodPost, protocol.PathScanClaim, protocol.ScanClaim{Profile: "baseline", Content: content, Images: images}, &out); err != nil {
		s.w.t.Fatal(err)
	}
	return out
}

func (s *scanning) sends(i protocol.ClaimedImage, r *protocol.ImageReport, failure string) error {
	s.w.t.Helper()
	if r != nil {
		r.Manifest, r.Config = i.Manifest, i.Config
	}
	return s.w.call(s.http, http.MethodPost, protocol.PathScanImage, protocol.WorkerScan{Image: i, Report: r, Error: failure, From: protocol.ScannedLayers}, &protocol.ScanTaken{})
}

// finds sends a good scan of an image that the worker was given.
func (s *scanning) finds(i protocol.ClaimedImage, outcome string) {
	s.w.t.Helper()
	r := scanOf(s.w.t, protocol.ScanTargetImage(i.Manifest), outcome, s.w.clock.Now().Add(time.Second))
	if err := s.sends(i, r, ""); err != nil {
		s.w.t.Fatal(err)
	}
}

func (w *world) counted(i protocol.ClaimedImage) []protocol.ImageResult {
	w.t.Helper()
	out, err := w.admin.Image(w.t.Context(), i.Manifest)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// TestWorkersShareScans: an image is given to one worker, its scan serves all, until it is old.
func TestWorkersShareScans(t *testing.T) {
	w := workerWorld(t, "workers: trusted, maxAge: 48h")
	a, b := w.scanning("worker-1"), w.scanning("worker-2")
	one, two := image("1"), image("2")
	if got := a.claim(scanContent, one, two); got.Image != one || !got.Until.After(w.clock.Now()) {
		t.Fatalf("first worker: got %+v, want the first image", got)
	}
	if got := b.claim(scanContent, one, two); got.Image != two {
		t.Fatalf("second worker: got %+v, want the image that nobody scans", got)
	}
	if got := b.claim(scanContent, one); got.Image != (protocol.ClaimedImage{}) || got.Reason != "" {
		t.Fatalf("image that the first worker scans: got %+v, want nothing to do", got)
	}
	if err := b.sends(one, scanOf(t, protocol.ScanTargetImage(one.Manifest), "pass", w.clock.Now()), ""); problem(err) != "no-lease" {
		t.Errorf("a scan of an image that another one was given: got %v", err)
	}
	a.finds(one, "fail")
	got := w.counted(one)
	if len(got) != 1 || got[0].By != "node/worker-1" || got[0].Worker == nil || got[0].Worker.Node != "worker-1" || len(got[0].Worker.Levels) != 5 || got[0].Worker.Levels[4].Status != "pass" || got[0].Statement == "" {
		t.Fatalf("got %+v, want the scan with its worker and its verdict then, signed", got)
	}
	w.restart()
	b.connect()
	if got := b.claim(scanContent, one); got.Image != (protocol.ClaimedImage{}) {
		t.Errorf("scanned image, after a restart: got %+v, want nothing to do", got)
	}
	if got := b.claim(strings.Repeat("d", 64), one); got.Image != one {
		t.Errorf("by other content: got %+v, want the image", got)
	}
	if err := b.sends(one, nil, "its layers are not here"); err != nil {
		t.Fatal(err)
	}
	if got := b.claim(strings.Repeat("d", 64), one); got.Image != (protocol.ClaimedImage{}) {
		t.Errorf("image that this worker could not scan: got %+v, want nothing to do", got)
	}
	w.clock.Advance(49 * time.Hour)
	for _, s := range []*scanning{a, b} {
		s.connect()
		if err := w.call(s.http, http.MethodGet, protocol.PathChallenge, nil, &s.next); err != nil {
			t.Fatal(err)
		}
		s.attests()
		s.judged("pass", true)
	}
	if got := b.claim(scanContent, one); got.Image != one {
		t.Errorf("an old scan: got %+v, want the image again", got)
	}
}

// TestFallenWorkersScansGo: scans of a worker that falls go at once, those of long ago stay, and another worker makes them anew.
func TestFallenWorkersScansGo(t *testing.T) {
	w := workerWorld(t, "workers: trusted, revoke: 1h")
	a, b := w.scanning("worker-1"), w.scanning("worker-2")
	old, late, working := image("1"), image("2"), image("3")
	a.claim(scanContent, old)
	a.finds(old, "pass")
	w.clock.Advance(2 * time.Hour)
	for _, s := range []*scanning{a, b} {
		if err := w.call(s.http, http.MethodGet, protocol.PathChallenge, nil, &s.next); err != nil {
			t.Fatal(err)
		}
		s.attests()
	}
	a.claim(scanContent, late)
	a.finds(late, "pass")
	if got := a.claim(scanContent, working); got.Image != working {
		t.Fatalf("got %+v", got)
	}
	if len(w.counted(late)) != 1 || len(w.counted(old)) != 1 {
		t.Fatal("the scans of a trusted worker do not count")
	}
	a.judged("fail", false)
	if a.node().Trust != protocol.Untrusted {
		t.Fatalf("got %+v, want the worker fallen", a.node())
	}
	if len(w.counted(late)) != 0 || len(w.counted(old)) != 1 {
		t.Errorf("after the fall: %d scans of late, %d of long ago, want 0 and 1", len(w.counted(late)), len(w.counted(old)))
	}
	if err := a.sends(working, scanOf(t, protocol.ScanTargetImage(working.Manifest), "pass", w.clock.Now()), ""); problem(err) != "scan-does-not-count" {
		t.Errorf("scan of a fallen worker: got %v", err)
	}
	if got := a.claim(scanContent, late); got.Image != (protocol.ClaimedImage{}) || !strings.Contains(got.Reason, "not trusted") {
		t.Errorf("a fallen worker asks: got %+v", got)
	}
	if got := b.claim(scanContent, working, late); got.Image != working {
		t.Errorf("what the fallen worker was given: got %+v, want it free", got)
	}
	if got := b.claim(scanContent, old, late); got.Image != late {
		t.Errorf("what the fallen worker had scanned: got %+v, want it scanned anew", got)
	}
}

// TestOperatorsStandAbove: while an operator's scan is young, no worker's by the same profile counts, and none is asked for.
func TestOperatorsStandAbove(t *testing.T) {
	w := workerWorld(t, "workers: trusted, maxAge: 48h")
	a := w.scanning("worker-1")
	one := protocol.ClaimedImage{Manifest: someManifest, Config: someConfig}
	a.claim(scanContent, one)
	r := scanOf(t, protocol.ScanTargetImage(one.Manifest), "fail", w.clock.Now())
	if _, err := w.admin.SubmitImage(t.Context(), one.Manifest, r); err != nil {
		t.Fatal(err)
	}
	w.clock.Advance(time.Minute)
	a.finds(one, "pass")
	if got := w.counted(one); len(got) != 1 || got[0].Worker != nil {
		t.Errorf("got %+v, want the operator's scan alone", got)
	}
	if got := a.claim(scanContent, one); got.Image != (protocol.ClaimedImage{}) {
		t.Errorf("got %+v, want nothing to do", got)
	}
	w.clock.Advance(49 * time.Hour)
	if got := w.counted(one); len(got) != 2 || got[0].Worker == nil {
		t.Errorf("when the operator's is old: got %+v, want both, the worker's first", got)
	}
}

// TestWorkerScansRefused: what was not asked for, is about something else or of another time is refused and changes nothing.
func TestWorkerScansRefused(t *testing.T) {
	w := workerWorld(t, "workers: trusted, content: ["+scanContent+"]")
	a := w.scanning("worker-1")
	one := image("1")
	for name, tt := range map[string]struct {
		change func(*protocol.ImageReport)
		want   string
	}{
		"other target":  {func(r *protocol.ImageReport) { *r = *scanOf(t, "oci://x", "pass", w.clock.Now()) }, "image-report"},
		"other content": {func(r *protocol.ImageReport) { r.Content = strings.Repeat("e", 64) }, "image-report"},
		"a tailoring":   {func(r *protocol.ImageReport) { r.Tailoring = strings.Repeat("e", 64) }, "image-report"},
		"nothing":       {func(r *protocol.ImageReport) { r.TestResult = nil }, "image-report"},
		"before the lease": {func(r *protocol.ImageReport) {
			*r = *scanOf(t, protocol.ScanTargetImage(one.Manifest), "pass", w.clock.Now().Add(-time.Hour))
		}, "image-report"},
	} {
		w.leases.failed = map[failure]time.Time{}
		if got := a.claim(scanContent, one); got.Image != one {
			t.Fatalf("%s: got %+v", name, got)
		}
		r := scanOf(t, protocol.ScanTargetImage(one.Manifest), "pass", w.clock.Now())
		tt.change(r)
		if err := a.sends(one, r, ""); problem(err) != tt.want {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
	}
	if got := w.counted(one); len(got) != 0 {
		t.Errorf("got %+v, want no scan", got)
	}
	if got := a.claim(strings.Repeat("d", 64), one); !strings.Contains(got.Reason, "other content") {
		t.Errorf("content that the policy does not name: got %+v", got)
	}
	if err := w.call(a.http, http.MethodPost, protocol.PathScanClaim, protocol.ScanClaim{Profile: "p", Content: scanContent, Images: []protocol.ClaimedImage{{Manifest: "x"}}}, nil); problem(err) != "scan-claim" {
		t.Errorf("images without digests: got %v", err)
	}
	w = workerWorld(t, "workers: none")
	if got := w.scanning("worker-1").claim(scanContent, one); !strings.Contains(got.Reason, "runtime.images.workers") {
		t.Errorf("a policy by which no worker's scan counts: got %+v", got)
	}
}

// problem is the word of a refusal; "" when there was none.
func problem(err error) string {
	var p *protocol.Problem
	if errors.As(err, &p) {
		return strings.TrimPrefix(p.Type, problemPrefix)
	}
	return fmt.Sprint(err)
}
