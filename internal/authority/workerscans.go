package authority

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/compliance/verdict"
	"touchstone.dev/touchstone/internal/policy"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
)

// Workers scan images that they have. One worker does so for all: AIAS gives an image to one of them, and keeps what it found by digest. Whose scan counts
// is decided four times: when an image is given out and when the result comes the worker must be trusted; when the worker falls, what it sent of late goes
// in the same write (Update.Revoke); and an operator's scan that is young enough stands above those of workers.

const (
	defaultScanAge = 144 * time.Hour
	defaultRevoke  = 24 * time.Hour
)

func scanAge(p *policy.Images) time.Duration {
	if p.MaxAge.Duration == 0 {
		return defaultScanAge
	}
	return p.MaxAge.Duration
}

// revoked is since when scans go of a node that loses trust at a time.
func revoked(p *policy.Images, now time.Time) time.Time {
	if p.Revoke.Duration == 0 {
		return now.Add(-defaultRevoke)
	}
	return now.Add(-p.Revoke.Duration)
}

// mayScan says why a scan of a worker by some content would not count; "" when it would.
func (a *Authority) mayScan(n *node, k scanKind, now time.Time) string {
	n.mu.RLock()
	trusted := n.trust == protocol.Trusted && !over(n.expires, now) && !n.gone
	n.mu.RUnlock()
	switch p := &a.snapshot.Load().Images; {
	case p.Workers != "trusted":
		return "the policy lets no scans of workers count (runtime.images.workers)"
	case !trusted:
		return "this worker is not trusted"
	case !p.Allows(k.content, k.tailoring):
		return "the policy names other content or tailorings for scans of images (runtime.images)"
	}
	return ""
}

// postScanClaim gives a worker the next image to scan.
func (a *Authority) postScanClaim(w http.ResponseWriter, r *http.Request, id identity) error {
	n, err := a.nodeOf(id)
	if err != nil {
		return err
	}
	if !n.limit.Allow() {
		return tooMany(w, "this node sends too much")
	}
	var c protocol.ScanClaim
	if err := decode(w, r, &c); err != nil {
		return err
	}
	if err := checkClaim(&c); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), handleTime)
	defer cancel()
	now, kind := a.now(), scanKind{c.Profile, c.Content, c.Tailoring}
	if reason := a.mayScan(n, kind, now); reason != "" {
		return answer(w, protocol.ScanLease{Reason: reason})
	}
	holds := func(name string) bool {
		other := a.node(name)
		return other != nil && a.mayScan(other, kind, now) == ""
	}
	for _, image := range c.Images {
		work := scanWork{image, kind}
		if !a.leases.free(work, n.name, now, holds) {
			continue
		}
		have, err := a.hasScan(ctx, work, c.Feed, now)
		if err != nil {
			return err
		}
		if have {
			continue
		}
		if l, ok := a.leases.take(work, n.name, now, holds); ok {
			a.log.Info("image given to a worker to scan", "node", n.name, "image", image.Manifest, "profile", c.Profile)
			return answer(w, protocol.ScanLease{Image: image, Until: l.until})
		}
	}
	return answer(w, protocol.ScanLease{})
}

func checkClaim(c *protocol.ScanClaim) error {
	bad := func(detail string) error {
		return refuse(http.StatusBadRequest, "scan-claim", "what the worker asks to scan is not as it must be", detail, "use an agent of this version")
	}
	switch {
	case c.Profile == "" || len(c.Profile) > maxFlawText:
		return bad("profile: want the id of one")
	case !hexSHA256.MatchString(c.Content) || c.Tailoring != "" && !hexSHA256.MatchString(c.Tailoring):
		return bad("content and tailoring: want a SHA-256, hexadecimal")
	case len(c.Images) > protocol.MaxClaimed:
		return bad(fmt.Sprintf("%d images, at most %d are taken", len(c.Images), protocol.MaxClaimed))
	}
	for _, i := range c.Images {
		if !imageDigest.MatchString(i.Manifest) || !imageDigest.MatchString(i.Config) {
			return bad("images: want digests of manifest and configuration")
		}
	}
	return nil
}

// hasScan reports whether a scan is here that makes another one needless: by an operator with the profile, or by a worker with the same content, too.
func (a *Authority) hasScan(ctx context.Context, w scanWork, feed bool, now time.Time) (bool, error) {
	all, err := a.imageResults(ctx, w.image.Manifest, maxImagesTold, now)
	if err != nil {
		return false, err
	}
	oldest := now.Add(-scanAge(&a.snapshot.Load().Images))
	return slices.ContainsFunc(all, func(i protocol.ImageResult) bool {
		s := i.Scan
		return i.Config == w.image.Config && s != nil && s.Profile == w.profile && i.At.After(oldest) && (!feed || i.Feed != nil) &&
			(i.Worker == nil || s.Content == w.content && s.Tailoring == w.tailoring)
	}), nil
}

// postScanImage takes what a worker found in the image that it was given.
func (a *Authority) postScanImage(w http.ResponseWriter, r *http.Request, id identity) error {
	n, err := a.nodeOf(id)
	if err != nil {
		return err
	}
	if !n.limit.Allow() {
		return tooMany(w, "this node sends too much")
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, protocol.MaxImageReport))
	if err != nil {
		return err
	}
	var scan protocol.WorkerScan
	if err := strictJSON(b, &scan); err != nil {
		return badImageReport("%v", err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), handleTime)
	defer cancel()
	if err := n.lock(ctx); err != nil { // the worker does not fall meanwhile
		return err
	}
	defer n.unlock()
	now := a.now()
	l, ok := a.leases.end(scan.Image, n.name, now)
	if !ok {
		return refuse(http.StatusConflict, "no-lease", "this image was not given to the worker to scan, or too long ago", clip(scan.Image.Manifest, 80), "ask which image to scan")
	}
	if reason := a.mayScan(n, l.scanKind, now); reason != "" {
		return refuse(http.StatusForbidden, "scan-does-not-count", "the scan does not count", reason, "another worker scans the image")
	}
	if scan.Report == nil {
		a.leases.fail(l, now)
		a.log.Warn("a worker could not scan an image", "node", n.name, "image", l.image.Manifest, "error", clip(strings.ToValidUTF8(scan.Error, "?"), protocol.MaxScanError))
		return answer(w, protocol.ScanTaken{})
	}
	out, err := a.takeWorkerScan(ctx, n, &l, &scan, now)
	if err != nil {
		a.leases.fail(l, now)
		return err
	}
	return answer(w, protocol.ScanTaken{Summary: out.Scan.Summary()})
}

// takeWorkerScan keeps a scan, with what is known of the worker that made it. The caller holds the node.
func (a *Authority) takeWorkerScan(ctx context.Context, n *node, l *lease, scan *protocol.WorkerScan, now time.Time) (*protocol.ImageResult, error) {
	r := scan.Report
	if err := checkImageReport(r, l.image.Manifest, now); err != nil {
		return nil, err
	}
	switch {
	case r.Config != l.image.Config || r.Content != l.content || r.Tailoring != l.tailoring || len(r.TestResult) == 0:
		return nil, badImageReport("it is about another image, or by other content or tailoring, than the worker was given")
	case scan.From != protocol.ScannedLayers && scan.From != protocol.ScannedSnapshot:
		return nil, badImageReport("from is %.40q: want %s or %s", scan.From, protocol.ScannedLayers, protocol.ScannedSnapshot)
	}
	if err := a.cpu.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	parsed, err := imageScan(r)
	a.cpu.Release(1)
	if err != nil {
		return nil, err
	}
	if parsed.Profile != l.profile {
		return nil, badImageReport("testResult is by profile %.120q, want %q", parsed.Profile, l.profile)
	}
	for what, at := range map[string]time.Time{"report": r.At, "testResult": parsed.At} {
		if at.Before(l.from.Add(-verdict.FutureLimit)) || at.After(now.Add(verdict.FutureLimit)) {
			return nil, badImageReport("%s is of %s, and the image was given out at %s: set the clock of the worker", what, at.UTC().Format(time.RFC3339), l.from.UTC().Format(time.RFC3339))
		}
	}
	out := &protocol.ImageResult{
		Manifest: r.Manifest, Config: r.Config, Platform: r.Platform, Scan: parsed, Feed: r.Feed, At: r.At.UTC(), Received: now.UTC(), By: protocol.ByWorker(n.name),
		Worker: &protocol.ScanWorker{Node: n.name, Levels: n.levels, SoftwareTPM: n.software, From: scan.From},
	}
	if parsed.At.Before(out.At) {
		out.At = parsed.At.UTC()
	}
	kept := store.WorkerScan{
		ImageScan: store.ImageScan{Manifest: out.Manifest, Config: out.Config, Profile: parsed.Profile, At: out.At},
		Content:   r.Content, Tailoring: r.Tailoring, Node: n.id, Received: now,
	}
	if kept.Record, err = json.Marshal(out); err != nil {
		return nil, err
	}
	err = a.store.PutWorkerScan(ctx, kept, maxImageScans)
	if errors.Is(err, store.ErrUsed) {
		return nil, refuse(http.StatusConflict, "image-report", "AIAS has a newer scan of the image by this profile", "", "set the clock of the worker")
	}
	if err == nil {
		a.log.Info("scan of an image taken", "image", out.Manifest, "profile", parsed.Profile, "by", out.By, "from", scan.From, "summary", parsed.Summary())
	}
	return out, err
}

// imageResults returns the scans that count, of one image or ("") of all, newest first.
func (a *Authority) imageResults(ctx context.Context, digest string, most int, now time.Time) ([]protocol.ImageResult, error) {
	p := &a.snapshot.Load().Images
	operators, err := a.store.ImageScans(ctx, digest, most)
	if err != nil {
		return nil, err
	}
	out := []protocol.ImageResult{}
	for _, s := range operators {
		var one protocol.ImageResult
		if err := json.Unmarshal(s.Record, &one); err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	if p.Workers != "trusted" {
		return out, nil
	}
	workers, err := a.store.WorkerScans(ctx, digest, most)
	if err != nil {
		return nil, err
	}
	above, oldest := out, now.Add(-scanAge(p))
	for _, s := range workers {
		var one protocol.ImageResult
		if err := json.Unmarshal(s.Record, &one); err != nil {
			return nil, err
		}
		if p.Allows(s.Content, s.Tailoring) && !slices.ContainsFunc(above, func(o protocol.ImageResult) bool { return outranks(&o, &one, oldest) }) {
			out = append(out, one)
		}
	}
	slices.SortStableFunc(out, func(x, y protocol.ImageResult) int { return y.At.Compare(x.At) })
	return out[:min(len(out), most)], nil
}

// outranks reports whether the scan o of an operator stands above the scan w of a worker: it is of the same image by the same profile, younger than oldest,
// and says all that w does.
func outranks(o, w *protocol.ImageResult, oldest time.Time) bool {
	return o.Config == w.Config && (o.Manifest == "" || o.Manifest == w.Manifest) && o.Scan != nil && o.Scan.Profile == w.Scan.Profile && o.At.After(oldest) &&
		(o.Feed != nil || w.Feed == nil)
}
