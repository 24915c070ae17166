package authority

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/escrow"
	"touchstone.dev/touchstone/internal/keystore"
	"touchstone.dev/touchstone/internal/ledger"
	"touchstone.dev/touchstone/internal/nbde"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/release"
	"touchstone.dev/touchstone/internal/store"
)

// Disks is the part of the configuration about keys of disks (clevis, Tang).
type Disks struct {
	Listen     string  `json:"listen"`     // HOST:PORT of plain HTTP; empty: keys of disks are not served
	Address    string  `json:"address"`    // HOST:PORT that clevis uses
	Open       bool    `json:"open"`       // answer for keys that all share, as a plain Tang does
	PerNode    float64 `json:"perNode"`    // recoveries a second, node and address, in the long run
	PerAddress float64 `json:"perAddress"` // recoveries a second and address with shared keys
	// Curve of new exchange keys. Those that are there stay as they are.
	Curve nbde.Curve `json:"curve"`
	// HSM makes new exchange keys in a token, which they never leave.
	HSM *keystore.PKCS11 `json:"hsm,omitempty"`
}

func (d *Disks) complete(c *Config) error {
	if d.PerNode <= 0 || d.PerAddress <= 0 {
		return fmt.Errorf("configuration: disks.perNode and disks.perAddress: want more than 0")
	}
	if err := d.Curve.Validate(); err != nil {
		return fmt.Errorf("configuration: disks.curve: %w", err)
	}
	if d.HSM != nil {
		if err := d.HSM.Validate("disks.hsm"); err != nil {
			return fmt.Errorf("configuration: %w", err)
		}
	}
	if d.Listen == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(d.Listen)
	if err != nil {
		return fmt.Errorf("configuration: disks.listen %q: want HOST:PORT or :PORT", d.Listen)
	}
	if d.Address == "" {
		if host, _, err := net.SplitHostPort(c.Address); err == nil {
			d.Address = net.JoinHostPort(host, port)
		}
	}
	return nil
}

// limits are those of the configuration; three seconds of them may come at once, and with shared keys ten: a rack that boots has one address.
func (d *Disks) limits() nbde.Limits {
	return nbde.Limits{PerNode: d.PerNode, PerNodeBurst: max(1, int(3*d.PerNode)), PerAddress: d.PerAddress, PerAddressBurst: max(1, int(10*d.PerAddress))}
}

// openDisks loads the keys of disks.
func (a *Authority) openDisks(ctx context.Context, v *vault) error {
	var err error
	var hsm nbde.HSM
	if c := a.cfg.Disks.HSM; c != nil {
		if hsm, err = keystore.OpenToken(*c); err != nil {
			return fmt.Errorf("disks.hsm: %w; to go on without it take disks.hsm out of the configuration: then only the disks stay closed whose keys are in it", err)
		}
	}
	a.disks, err = nbde.Open(ctx, nbde.Options{
		Store: a.store, Seal: a.secrets, Standing: a.diskStanding, Note: a.noteDisk,
		Open: a.cfg.Disks.Open, Curve: a.cfg.Disks.Curve, HSM: hsm, Limits: a.cfg.Disks.limits(), Now: a.now, Log: a.log,
	})
	a.escrow = &escrow.Service{Store: a.store, Seal: a.secrets, Note: a.noteEscrow, Now: a.now}
	return err
}

// noteDisk puts a recovery into the ledger; nothing is released that is not there.
func (a *Authority) noteDisk(ctx context.Context, e nbde.Event) error {
	kind, decision := ledger.KeyRefused, "refused"
	if e.Released {
		kind, decision = ledger.KeyReleased, "released"
	}
	entry := ledger.Entry{Kind: kind, Node: e.Node, Actor: "address:" + e.Source, Subject: "disk-key:" + e.Key, Decision: decision, Reason: e.Reason}
	if n := a.node(e.Node); n != nil {
		entry.Verdict = n.view(a.now()).Trust
	}
	if err := a.record(ctx, entry); err != nil {
		return err
	}
	a.metrics.disks.WithLabelValues(decision).Inc()
	return nil
}

// diskStanding is what the gate of disks is told of a node: its present verdict, or the last one, whose levels a node that fell silent has no more.
func (a *Authority) diskStanding(ctx context.Context, name string, last bool) (release.Node, error) {
	n := a.node(name)
	if n == nil {
		return release.Node{Why: "the node is not enrolled"}, nil
	}
	now := a.now()
	s := n.standing(now)
	if !last || !s.Valid || now.Before(s.Expires) {
		return s, nil
	}
	b, err := a.store.Verdict(ctx, n.id)
	if err != nil {
		return release.Node{Why: "the last verdict is not kept"}, ignoreNotFound(err)
	}
	var v appraisal.Verdict
	if err := json.Unmarshal(b, &v); err != nil {
		return release.Node{}, fmt.Errorf("verdict on %s: %w", name, err)
	}
	s.Levels, s.Reasons = map[int32]string{}, map[int32]string{}
	for _, l := range levelInfos(&v) {
		s.Levels[int32(l.Level)], s.Reasons[int32(l.Level)] = l.Status, l.Reason
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	if t := n.tag; t != nil && t.proven {
		s.Tags = t.tags
	}
	return s, nil
}

// disksNow tells a node that just attested whether its disks would open, for who sits before a machine that does not come up.
func (a *Authority) disksNow(ctx context.Context, n *node, v *appraisal.Verdict, from netip.Addr) *protocol.DiskAnswer {
	levels, missing, err := a.disks.Would(ctx, n.name, from)
	switch {
	case err != nil:
		a.log.Error("whether the disks of a node would open cannot be told", "node", n.name, "err", err)
		return nil
	case len(levels) == 0:
		return nil
	}
	out := &protocol.DiskAnswer{Open: len(missing) == 0, Missing: missing}
	for i := range v.Levels {
		if l := &v.Levels[i]; !out.Open && slices.Contains(levels, int32(l.Level)) {
			out.Findings = append(out.Findings, findings(l)...)
		}
	}
	return out
}

// maxFindings bounds what is shown of a level on the console of a machine.
const maxFindings = 3

// findings are those that cost a level its trust, the worst first.
func findings(l *appraisal.Level) []protocol.DiskFinding {
	var out []protocol.DiskFinding
	for _, status := range []appraisal.Status{appraisal.Fail, appraisal.Unknown} {
		for i := range l.Findings {
			if f := &l.Findings[i]; f.Status == status && len(out) < maxFindings {
				out = append(out, protocol.DiskFinding{Level: l.Level, Rule: f.Rule, Message: short(f.Message), Remedy: short(f.Remedy)})
			}
		}
	}
	return out
}

func ignoreNotFound(err error) error {
	if notFound(err) {
		return nil
	}
	return err
}

// ImportDiskKeys takes keys of a tangd over, and returns how many were new.
func (a *Authority) ImportDiskKeys(ctx context.Context, keys []nbde.Held) (int, error) {
	return a.disks.Import(ctx, keys, store.Act{At: a.now(), Operator: "local", Act: "disk.import", Detail: fmt.Sprintf("%d keys of a tangd", len(keys))})
}

// sourceOf is the address that a request came from.
func sourceOf(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap().WithZone("")
}

// DiskHandler answers clevis.
func (a *Authority) DiskHandler() http.Handler {
	return &nbde.Server{Ring: a.disks.Ring, Gate: a.disks.Gate, Failed: a.disks.Failed, Log: a.log}
}

// Time limits of a connection with clevis: its requests and our answers are small.
const (
	diskTime   = 10 * time.Second
	diskHeader = 4 << 10
)

// serveDisks answers clevis on the configured address until ctx ends. It is plain HTTP, as clevis in an initramfs speaks it: what is sent tells a
// listener nothing of keys, and advertisements are signed.
func (a *Authority) serveDisks(ctx context.Context, room *room) (stop func(), err error) {
	if a.cfg.Disks.Listen == "" {
		return func() {}, nil
	}
	if err := a.disks.Prepare(ctx); err != nil {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", a.cfg.Disks.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for clevis: %w", err)
	}
	srv := &http.Server{
		Handler: a.DiskHandler(), ReadHeaderTimeout: diskTime, ReadTimeout: diskTime, WriteTimeout: diskTime, IdleTimeout: diskTime,
		MaxHeaderBytes: diskHeader, ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		err := srv.Serve(&bounded{Listener: l, max: int64(a.cfg.Limits.Connections), room: room, log: a.log})
		if ctx.Err() == nil && err != http.ErrServerClosed {
			a.log.Error("clevis is not answered any more", "err", err)
		}
	})
	a.log.Info("answering clevis", "on", l.Addr().String(), "address", a.cfg.Disks.Address, "open", a.cfg.Disks.Open)
	return func() {
		drain, done := context.WithTimeout(context.WithoutCancel(ctx), diskTime)
		defer done()
		if srv.Shutdown(drain) != nil {
			_ = srv.Close()
		}
		wg.Wait()
	}, nil
}
