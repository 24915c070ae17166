package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"touchstone.dev/touchstone/internal/audit/attribution"
	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/audit/rules"
	"touchstone.dev/touchstone/internal/audit/source"
	"touchstone.dev/touchstone/internal/version"
)

// AuditConfig says how the agent sends the kernel's audit events to AIAS.
type AuditConfig struct {
	// Enabled switches it on. It needs auditd on the worker (docs/audit.md).
	Enabled bool `json:"enabled"`
	// Log is auditd's log, which what multicast netlink missed is read from.
	Log string `json:"log"`
	// SpoolBytes bounds the events that wait for AIAS on disk, in the state folder; what finds no room is a gap with a name.
	SpoolBytes int64 `json:"spoolBytes"`
	// Rules says that the shipped rules are the intended ones: how the loaded ones differ is told, and what costs too much is taken out for a while.
	Rules bool `json:"rules"`
}

const minSpoolBytes = 1 << 20

func (c *AuditConfig) validate(add func(bad bool, format string, args ...any)) {
	add(c.Enabled && c.SpoolBytes < minSpoolBytes, "audit.spoolBytes %d: want at least %d", c.SpoolBytes, minSpoolBytes)
}

const (
	auditFolder  = "audit"       // in the state folder
	auditKept    = "kept.json"   // up to where the source is committed
	auditSource  = "source.json" // its checkpoint
	auditTick    = time.Second
	auditSync    = 4096 // items between two syncs, at most
	maxAuditSeen = 1 << 20
	// auditPatience is how long a statement waits for the kernel's status when the agent has just begun.
	auditPatience = 3 * time.Second
)

// auditing takes audit events in, chains them and keeps them until AIAS has them. Attestation does not wait for it.
type auditing struct {
	cfg      AuditConfig
	dir      string
	log      *slog.Logger
	spool    *chain.Spool
	resolver *attribution.Resolver
	keeper   *rules.Keeper
	bootID   string
	ask      func()
	sender   *auditSender

	mu      sync.Mutex
	status  *source.Status
	drift   string
	problem string
	known   chan struct{} // closed with the first status
	once    sync.Once

	items int // since the last commit
	fresh bool
}

// openAudit opens the spool; nil when auditing is not configured.
func (a *Agent) openAudit() error {
	if !a.cfg.Audit.Enabled {
		return nil
	}
	dir := filepath.Join(a.cfg.StateDir, auditFolder)
	spool, err := chain.Open(chain.Options{Dir: filepath.Join(dir, "spool"), MaxBytes: a.cfg.Audit.SpoolBytes, Log: a.log})
	if err != nil {
		return err
	}
	boot, err := os.ReadFile(filepath.Join(a.cfg.HostRoot, "proc/sys/kernel/random/boot_id"))
	if err != nil {
		return fmt.Errorf("read the boot id: %w", err)
	}
	u := &auditing{
		cfg: a.cfg.Audit, dir: dir, log: a.log, spool: spool, bootID: strings.TrimSpace(string(boot)), ask: a.Ask, known: make(chan struct{}),
		resolver: newResolver(a.cfg.HostRoot),
	}
	if a.cfg.Audit.Rules {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		u.keeper = &rules.Keeper{Governor: rules.Governor{Ctl: rules.Auditctl, Budget: rules.DefaultBudget}, Agent: self}
	}
	u.sender = newAuditSender(spool, backoff{initial: time.Duration(a.cfg.Backoff.Initial), max: time.Duration(a.cfg.Backoff.Max)}, a.Ask, a.log)
	a.audit = u
	return nil
}

// run reads events until ctx ends.
func (u *auditing) run(ctx context.Context) {
	go u.sender.run(ctx)
	defer func() {
		if err := u.spool.Close(); err != nil {
			u.log.Error("the audit spool was not closed in order", "error", err)
		}
	}()
	for ctx.Err() == nil {
		err := u.read(ctx)
		if ctx.Err() != nil {
			break
		}
		u.log.Error("audit events cannot be read: trying again", "error", err)
		u.trouble(fmt.Sprint(err))
		sleep(ctx, 5*time.Second)
	}
	if u.keeper != nil {
		u.keeper.Close(context.WithoutCancel(ctx))
	}
}

// read takes items of one reader in until that fails.
func (u *auditing) read(ctx context.Context) error {
	seen, err := u.uncommitted()
	if err != nil {
		return err
	}
	r, err := source.Open(ctx, source.Config{Log: u.cfg.Log, Checkpoint: filepath.Join(u.dir, auditSource)})
	if err != nil {
		return err
	}
	defer r.Close()
	if err := u.spool.AddBegin(&chain.Begin{BootID: u.bootID, Agent: version.String(), Source: "multicast and " + u.cfg.Log}); err != nil {
		return err
	}
	u.trouble("")
	for ctx.Err() == nil {
		tick, stop := context.WithTimeout(ctx, auditTick)
		for {
			it, err := r.Next(tick)
			if err != nil {
				break
			}
			if err := u.take(&it, seen); err != nil { //nolint:contextcheck // as it says
				stop()
				return err
			}
			if u.items++; u.items >= auditSync {
				break
			}
		}
		stop()
		if err := u.commit(r); err != nil {
			return err
		}
		if u.keeper != nil {
			u.tend(ctx)
		}
	}
	return ctx.Err()
}

// take puts one item into the chain.
func (u *auditing) take(it *source.Item, seen map[string]bool) error {
	switch {
	case it.Event != nil:
		raw := it.Event.Raw()
		id := chain.EventID(raw)
		if len(seen) > 0 && seen[id] { // in the chain already: the agent ended before it could say so
			delete(seen, id)
			return nil
		}
		if u.keeper != nil {
			u.keeper.Count(it.Event)
		}
		c := u.resolver.Of(it.Event) //nolint:contextcheck // it asks for a moment only
		c.Partial = it.Event.Partial
		u.spool.Add(raw, c, id)
	case it.Gap != nil:
		return u.spool.AddGap(gapOf(it.Gap, it.At))
	case it.Status != nil:
		return u.takeStatus(it.Status)
	}
	return nil
}

// gapOf is a gap of the source as the chain keeps it; the reasons are the same words.
func gapOf(g *source.Gap, at time.Time) chain.Gap {
	out := chain.Gap{Why: g.Why, Events: g.Events, AtLeast: g.AtLeast, Records: g.Records, Lost: g.Counter, Detail: plain(g.Detail), From: at.UnixMilli(), To: at.UnixMilli()}
	if g.First > 0 {
		out.First, out.Last = strconv.FormatUint(g.First, 10), strconv.FormatUint(g.Last, 10)
	}
	return out
}

// takeStatus keeps what the kernel says of its audit system. An alarm is attested at once.
func (u *auditing) takeStatus(s *source.Status) error {
	var alarms []string
	for _, a := range s.Alarms {
		alarms = append(alarms, string(a))
		u.fresh = u.fresh || a == source.AlarmRules
	}
	alarm := plain(strings.Join(alarms, " "))
	if s.Err != "" {
		alarm = plain(alarm + ": " + s.Err)
	}
	u.mu.Lock()
	if s.Err == "" {
		u.status = s
		u.once.Do(func() { close(u.known) })
	}
	drift := u.drift
	u.mu.Unlock()
	if alarm != "" {
		u.log.Warn("alarm of the kernel's audit", "what", alarm)
		defer u.ask()
	}
	return u.spool.AddStatus(&chain.Status{Enabled: s.Enabled, PID: s.PID, Lost: uint64(s.Lost), Backlog: s.Backlog, Limit: s.Limit, RulesDigest: s.RulesDigest, Drift: drift, Alarm: alarm})
}

// tend compares the loaded rules with the intended ones, and keeps single keys within their budget.
func (u *auditing) tend(ctx context.Context) {
	for _, n := range u.keeper.Tick(ctx, time.Now(), u.fresh) {
		u.log.Warn(n.String())
		u.mu.Lock()
		changed := u.drift != plain(u.keeper.Drift())
		u.drift = plain(u.keeper.Drift())
		status := chain.Status{Drift: u.drift, Alarm: plain(n.String())}
		if s := u.status; s != nil {
			status.Enabled, status.PID, status.Lost, status.RulesDigest = s.Enabled, s.PID, uint64(s.Lost), s.RulesDigest
		}
		u.mu.Unlock()
		if err := u.spool.AddStatus(&status); err != nil {
			u.log.Error("a change of the audit rules cannot be chained", "error", err) // its texts are short: not reached
		}
		if changed {
			u.ask()
		}
	}
	u.fresh = false
}

// kept says that the source is committed up to an entry of a chain.
type kept struct {
	Chain string `json:"chain"`
	Seq   uint64 `json:"seq"`
}

// commit makes what was taken in durable, then tells the source that it need not hand it out again, in this order.
func (u *auditing) commit(r *source.Reader) error {
	if u.items == 0 {
		return nil
	}
	u.items = 0
	if err := u.spool.Sync(); err != nil {
		u.log.Debug("the audit spool", "error", err) // it said so itself; what is missing is accounted for
	}
	at := u.spool.Head()
	if err := r.Commit(); err != nil {
		return err
	}
	b, err := json.Marshal(kept{at.Chain.String(), at.Seq})
	if err != nil {
		return err
	}
	tmp := filepath.Join(u.dir, "."+auditKept)
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(u.dir, auditKept)); err != nil {
		return err
	}
	u.spool.Keep(at.Seq)
	return nil
}

// uncommitted returns the events in the chain that the source may hand out again.
func (u *auditing) uncommitted() (map[string]bool, error) {
	var k kept
	b, err := os.ReadFile(filepath.Join(u.dir, auditKept))
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		u.log.Warn("the place up to which audit events are committed cannot be read: all are compared", "error", err)
	}
	seen := map[string]bool{}
	seq := uint64(0)
	if k.Chain == u.spool.Head().Chain.String() {
		seq = k.Seq
	}
	for len(seen) < maxAuditSeen {
		b, err := u.spool.Read(seq, 1<<20)
		if err != nil || len(b.Entries) == 0 {
			return seen, err
		}
		for _, raw := range b.Entries {
			if e, err := chain.Parse(raw); err == nil && e.Kind == chain.KindEvent {
				seen[chain.EventID(e.Body)] = true
			}
		}
		seq = b.Before.Seq + uint64(len(b.Entries))
	}
	return seen, nil
}
