package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
)

// Link is the way to AIAS for an enrolled worker. Client implements it.
type Link interface {
	Challenge(ctx context.Context) (*protocol.Challenge, error)
	Attest(ctx context.Context, document []byte) (*protocol.Attestation, error)
	Renew(ctx context.Context, req *protocol.RenewRequest) (*protocol.Renewal, error)
	// News waits at AIAS, for hold at most, and reports whether the worker should attest: its asset tag has another serial.
	News(ctx context.Context, tag uint64, hold time.Duration) (bool, error)
	// ReleaseKey asks for the key of an image, encrypted to the TPM; LostKeys which of some the worker would not get any more.
	ReleaseKey(ctx context.Context, req *protocol.ReleaseRequest) (*protocol.Release, error)
	LostKeys(ctx context.Context, held []string) ([]protocol.LostKey, error)
	// AuditAt asks up to where AIAS has the audit chain; SendAudit sends a batch of it. lost: what came before the batch is lost here.
	AuditAt(ctx context.Context) (*protocol.AuditAck, error)
	SendAudit(ctx context.Context, batch []byte, lost bool) (*protocol.AuditAck, error)
	// Tailoring asks for the tailoring of the policy.
	Tailoring(ctx context.Context) (*protocol.Tailoring, error)
	// SendScanDocument hands over a document of a compliance scan, compressed.
	SendScanDocument(ctx context.Context, kind string, document []byte) error
	// SendCompliance hands over a compliance scan.
	SendCompliance(ctx context.Context, req *protocol.ComplianceReport) (*protocol.ComplianceAnswer, error)
	// ClaimScan asks which image to scan next; SendScan hands over what was found in it.
	ClaimScan(ctx context.Context, req *protocol.ScanClaim) (*protocol.ScanLease, error)
	SendScan(ctx context.Context, req *protocol.WorkerScan) (*protocol.ScanTaken, error)
	Close()
}

// Agent keeps one worker attested. Make it with New.
type Agent struct {
	cfg  Config
	log  *slog.Logger
	host Host
	open func() (TPM, error)
	// dial connects an enrolled worker; enrolWith gets it its certificate. Fields, so that tests need no network.
	dial      func(id *Identity, t TPM) (Link, error)
	enrolWith func(ctx context.Context, t TPM, token string, before *Identity) (*Identity, *protocol.Challenge, error)
	now       func() time.Time
	ask       chan struct{}
	watch     *watcher
	tag       *nvTag
	images    *imageKeys    // nil: no key provider is configured
	audit     *auditing     // nil: auditing is not configured
	scans     *scanner      // nil: the worker is not scanned
	imageScan *imageScanner // nil: its images are not
	changed   time.Time     // start of the last attestation for a change
	wait      backoff
	anew      *forgotten // why the next session enrols though there is an enrolment
	// Observe is called after every attestation, and Tap with each Evidence document before it is sent, when they are set before Run.
	Observe func(Report)
	Tap     func(document []byte)
}

// New makes an agent for a worker. open opens its TPM; the agent closes it, and opens it anew after a failure.
func New(cfg Config, host Host, open func() (TPM, error), log *slog.Logger) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	host, err := withTags(host, cfg.AssetTags)
	if err != nil {
		return nil, err
	}
	host = withVolumes(host, cfg.HostRoot, cfg.Mountinfo)
	host = withKubelet(host, cfg.HostRoot, cfg.Kubelet.PKIDir)
	a := &Agent{
		cfg: cfg, log: log, host: host, open: open, now: time.Now,
		ask:   make(chan struct{}, 1),
		watch: newWatcher(host, cfg.Watch),
		tag:   newNVTag(cfg.NVTag, log),
		wait:  backoff{initial: time.Duration(cfg.Backoff.Initial), max: time.Duration(cfg.Backoff.Max)},
	}
	a.dial = func(id *Identity, t TPM) (Link, error) { return Dial(&a.cfg, id, t) }
	a.enrolWith = func(ctx context.Context, t TPM, token string, before *Identity) (*Identity, *protocol.Challenge, error) {
		return enrolOnce(ctx, &a.cfg, t, token, before, a.now())
	}
	if cfg.Compliance.Content != "" {
		a.scans = newScanner(&a.cfg, log, time.Now)
	}
	if cfg.ImageScans.Content != "" {
		a.imageScan = newImageScanner(&a.cfg, log, time.Now)
	}
	return a, errors.Join(a.openImageKeys(), a.openAudit())
}

// Ask makes a running agent attest at once.
func (a *Agent) Ask() {
	select {
	case a.ask <- struct{}{}:
	default:
	}
}

// Run keeps the worker attested until ctx ends, then returns nil. It returns an error only for what no retry can mend: a worker
// that is not enrolled and has no token, or a TPM that does not answer any more.
func (a *Agent) Run(ctx context.Context) error {
	go a.watch.run(ctx)
	if a.images != nil {
		go a.serveImageKeys(ctx)
	}
	if a.audit != nil {
		var reading sync.WaitGroup
		defer reading.Wait() // the spool is closed in order
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		reading.Go(func() { a.audit.run(ctx) })
	}
	if a.scans != nil {
		go a.scans.run(ctx)
	}
	if a.imageScan != nil {
		go a.imageScan.run(ctx)
	}
	notify("READY=1")
	for {
		err := a.session(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // told to stop: whatever that broke is no failure
		}
		if errors.Is(err, ErrNotEnrolled) || errors.Is(err, errStuck) {
			return err
		}
		errors.As(err, &a.anew)
		d := a.pause(err)
		a.log.Warn("trying again", "error", err, "in", d.Round(time.Millisecond))
		if !a.rest(ctx, d) {
			return nil
		}
	}
}

// rest waits out a pause; who asks for an attestation (SIGUSR1) cuts it short.
func (a *Agent) rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-a.ask:
	}
	return ctx.Err() == nil
}

// pause is how long to wait after a failure: what AIAS asked for at least, else the back-off.
func (a *Agent) pause(err error) time.Duration {
	d := a.wait.next()
	var r *Refusal
	if errors.As(err, &r) && r.RetryAfter > 0 {
		d += r.RetryAfter
	}
	return d
}

// session opens the TPM, makes sure the worker is enrolled, and attests until something fails that needs a new session.
func (a *Agent) session(ctx context.Context) error {
	var t TPM
	err := guard(ctx, tpmTimeout, func() (err error) { t, err = a.open(); return err })
	if err != nil {
		return fmt.Errorf("open the TPM: %w", err)
	}
	defer t.Close() //nolint:errcheck // nothing is buffered
	id, first, err := a.identity(ctx, t)
	if err != nil {
		return err
	}
	link, err := a.dial(id, t)
	if err != nil {
		return err
	}
	s := &attester{node: id.Node, tpm: t, host: a.host, link: link, next: first, now: a.now, tap: a.Tap, tag: a.tag}
	defer func() { s.link.Close() }()
	if a.images != nil {
		defer a.images.leave()
	}
	if a.audit != nil || a.scans != nil {
		s.statement = a.statement
	}
	if a.audit != nil {
		defer a.audit.sender.leave()
	}
	for why := TriggerStart; why != ""; {
		if id, err = a.keepFresh(ctx, s, id); err != nil {
			a.log.Warn("the client certificate could not be renewed", "error", err)
		}
		if a.images != nil {
			a.images.enter(id.Node, t, s.link)
		}
		if a.audit != nil {
			a.audit.sender.enter(s.link)
		}
		var r Report
		if err := guard(ctx, a.limit(), func() error { r = s.attest(ctx, why); return nil }); err != nil {
			return err
		}
		if a.images != nil {
			a.images.attested(ctx, r)
		}
		if a.scans != nil {
			a.scans.attested(id.Node, s.link, r)
		}
		if a.imageScan != nil && r.Err == nil {
			a.imageScan.attested(s.link)
		}
		a.report(r)
		if why, err = a.after(ctx, s, r); err != nil {
			return a.judge(ctx, id, err)
		}
	}
	return ctx.Err()
}

// after decides what follows an attestation: it waits, and returns the next trigger ("" when ctx ended), or an error that ends the session.
func (a *Agent) after(ctx context.Context, s *attester, r Report) (Trigger, error) {
	if r.Err == nil {
		a.wait.reset()
		return a.waitForTrigger(ctx, s, r), nil
	}
	if errors.Is(r.Err, errTPM) || lostIdentity(r.Err) || brokenTLS(r.Err) {
		return "", r.Err
	}
	d := a.pause(r.Err)
	a.log.Warn("attestation failed", "error", r.Err, "trying again in", d.Round(time.Millisecond))
	if !a.rest(ctx, d) {
		return "", nil
	}
	return r.Trigger, nil
}

// lostIdentity reports whether AIAS does not take the certificate (any more): a new session loads the identity anew.
func lostIdentity(err error) bool {
	var r *Refusal
	return errors.As(err, &r) && (r.Status == http.StatusUnauthorized || r.Status == http.StatusForbidden)
}

// waitForTrigger waits for the first reason to attest again; "" when ctx ended.
func (a *Agent) waitForTrigger(ctx context.Context, s *attester, r Report) Trigger {
	next := &r.Attestation.Next
	if a.tag.isNew(next.AssetTag) {
		return a.spaced(ctx, TriggerTag)
	}
	interval := time.Duration(next.Interval) * time.Second
	d := jitter(min(max(interval, minInterval), maxInterval), 0.1)
	timer := time.NewTimer(d)
	defer timer.Stop()
	var listener sync.WaitGroup
	defer listener.Wait()
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	news := make(chan struct{}, 1)
	listener.Go(func() {
		if listen(waiting, s.link, next.AssetTag, time.Duration(a.cfg.Timeout), d) {
			news <- struct{}{}
		}
	})
	select {
	case <-ctx.Done():
		return ""
	case <-timer.C:
		return TriggerTimer
	case <-a.ask:
		return TriggerAsked
	case <-news:
		s.next = nil // it does not have the news
		return a.spaced(ctx, TriggerTag)
	case t := <-a.watch.changes:
		return a.spaced(ctx, t)
	}
}

// spaced keeps the least time between two attestations for a change.
func (a *Agent) spaced(ctx context.Context, t Trigger) Trigger {
	if !sleep(ctx, max(0, time.Duration(a.cfg.Watch.MinGap)-a.now().Sub(a.changed))) {
		return ""
	}
	a.changed = a.now()
	return t
}

// Bounds on what AIAS can set as the interval.
const (
	minInterval = time.Second
	maxInterval = time.Hour
)

// identity loads the enrolment, or enrols with the token of the configuration: when there is no enrolment, when it has expired, or when AIAS has forgotten it. The
// latter is done once: when it fails, the next session tries the enrolment that is there, as AIAS may have its data again.
func (a *Agent) identity(ctx context.Context, t TPM) (*Identity, *protocol.Challenge, error) {
	why := a.anew
	a.anew = nil
	id, err := LoadIdentity(a.cfg.StateDir)
	if err == nil && id.Server != a.cfg.Server {
		a.log.Warn("the enrolment is with another server", "enrolled", id.Server, "configured", a.cfg.Server)
	}
	if err == nil {
		err = id.expired(a.now())
	}
	if err == nil && why == nil || a.cfg.TokenFile == "" || err != nil && !errors.Is(err, ErrNotEnrolled) && !errors.Is(err, errExpired) {
		return id, nil, err
	}
	if why != nil {
		a.log.Warn("enrolling anew", "why", why.why)
	}
	fresh, first, err := a.enrol(ctx, t, id)
	switch {
	case err != nil && why != nil:
		return nil, nil, fmt.Errorf("%s, and it could not enrol anew: %w; if that stays so, %s", why.why, err, a.byHand(id.Node))
	case err != nil:
		return nil, nil, err
	case why != nil:
		a.log.Warn("enrolled anew", "node", fresh.Node, "server", fresh.Server, "why", why.why)
	default:
		a.log.Info("enrolled", "node", fresh.Node, "server", fresh.Server)
	}
	return fresh, first, nil
}

// enrol enrols with the token of the configuration. before is the enrolment that there was, or nil.
func (a *Agent) enrol(ctx context.Context, t TPM, before *Identity) (*Identity, *protocol.Challenge, error) {
	token, err := readBounded(a.cfg.TokenFile, maxConfig)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, fmt.Errorf("the join token %s is not there (yet): %w", a.cfg.TokenFile, err)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the join token: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, a.limit())
	defer cancel()
	return a.enrolWith(ctx, t, strings.TrimSpace(string(token)), before)
}
