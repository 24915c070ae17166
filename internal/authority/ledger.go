package authority

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/ledger"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
)

// Names of the ledger.
const (
	LedgerDir     = "ledger"      // folder in the data folder
	LedgerKeyFile = "ledger.pub"  // its public key, for whoever verifies a copy
	ledgerSecret  = "key.ledger"  // secret and public key in the vault, a line each
	ledgerCursor  = "ledger.seen" // how far it has the database, and the checkpoint of that time
)

const (
	ledgerBatch = 512 // rows of the database that go into the ledger at a time
	closeTime   = 5 * time.Second
)

// cursor is how far the history and the acts of operators are in the ledger.
type cursor struct {
	Change     int64  `json:"change"`
	Act        int64  `json:"act"`
	Checkpoint string `json:"checkpoint"`
}

// record writes into the ledger what must not happen unrecorded; the caller acts only when it returns nil.
func (a *Authority) record(ctx context.Context, e ledger.Entry) error {
	e.Time = a.now()
	err := a.ledger.Append(ctx, e)
	if err != nil && ctx.Err() == nil {
		a.metrics.ledger.Inc()
	}
	return err
}

// OpenLedger opens the ledger of the data folder, where only the service may write. Until then, what must be recorded is refused. A ledger that does not
// continue what it was is not opened. It stays open until CloseLedger.
func (a *Authority) OpenLedger(ctx context.Context) error {
	if a.ledger != nil {
		return nil
	}
	secret, public, err := a.vault.ledgerKeys(ctx)
	if notFound(err) {
		if secret, public, err = ledger.NewKey(); err != nil {
			return fmt.Errorf("make the key of the ledger: %w", err)
		}
		err = a.vault.put(ctx, map[string][]byte{ledgerSecret: []byte(secret + "\n" + public)}, nil)
	}
	if err != nil {
		return err
	}
	dir := filepath.Join(a.cfg.Data, LedgerDir)
	c, err := a.cursor(ctx)
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); c.Checkpoint != "" && err != nil {
		return fmt.Errorf("the ledger is gone (%w): restore %s from a backup", err, dir)
	}
	l, err := ledger.Open(ctx, dir, secret, public)
	if err != nil {
		return err
	}
	if err := a.resume(ctx, l, c); err != nil {
		return errors.Join(err, l.Close())
	}
	if err := os.WriteFile(filepath.Join(a.cfg.Data, LedgerKeyFile), []byte(public+"\n"), 0o644); err != nil { //nolint:gosec // public
		return errors.Join(fmt.Errorf("write the public key of the ledger: %w", err), l.Close())
	}
	a.ledger = l
	return nil
}

func (a *Authority) cursor(ctx context.Context) (cursor, error) {
	var c cursor
	b, err := a.store.Setting(ctx, ledgerCursor)
	if err != nil {
		return c, ignoreMissing(err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("setting %s: %w", ledgerCursor, err)
	}
	return c, nil
}

// resume checks that the ledger continues what it was when the cursor was saved, and finds out what was copied after that.
func (a *Authority) resume(ctx context.Context, l *ledger.Ledger, c cursor) error {
	r := l.Reader()
	now, err := r.Checkpoint(ctx)
	if err != nil {
		return err
	}
	first := uint64(0)
	if c.Checkpoint != "" {
		then, err := r.Parse([]byte(c.Checkpoint))
		if err == nil {
			err = r.Continues(ctx, then, now)
		}
		if err != nil {
			return fmt.Errorf("%w: AIAS does not start with it: restore %s from a backup, or find out who changed it", err, l.Dir())
		}
		first = then.Size
	}
	for e, err := range r.Entries(ctx, now, first) {
		if err != nil {
			return err
		}
		table, id, _ := strings.Cut(e.Ref, "/")
		n, err := strconv.ParseInt(id, 10, 64)
		if err != nil {
			continue
		}
		switch table {
		case "history":
			c.Change = max(c.Change, n)
		case "acts":
			c.Act = max(c.Act, n)
		}
	}
	a.copied = c
	return nil
}

// ledgerLoop copies verdicts and acts of operators from the database into the ledger, in its own time: an attestation does not wait for it. What the
// service did not come to is copied at its next start.
func (a *Authority) ledgerLoop(ctx context.Context) {
	if a.ledger == nil {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		changed := a.changes.wait()
		for more := true; more; {
			var err error
			if more, err = a.copyToLedger(ctx); err != nil && ctx.Err() == nil {
				a.metrics.ledger.Inc()
				a.log.Error("the ledger is behind the database", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		}
	}
}

// CloseLedger copies what is left, and closes the ledger. Call it when nothing else runs any more.
func (a *Authority) CloseLedger(ctx context.Context) error {
	var err error
	a.closed.Do(func() {
		if a.ledger == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
		defer cancel()
		for more := true; more && err == nil; {
			more, err = a.copyToLedger(ctx)
		}
		err = errors.Join(err, a.ledger.Close())
	})
	return err
}

// copyToLedger copies one batch; it tells whether there may be more.
func (a *Authority) copyToLedger(ctx context.Context) (more bool, err error) {
	c := a.copied
	changes, err := a.store.HistoryAfter(ctx, c.Change, ledgerBatch)
	if err != nil {
		return false, err
	}
	acts, err := a.store.ActsAfter(ctx, c.Act, ledgerBatch)
	if err != nil || len(changes)+len(acts) == 0 {
		return false, err
	}
	entries := make([]ledger.Entry, 0, len(changes)+len(acts))
	for i, j := 0, 0; i < len(changes) || j < len(acts); {
		if j == len(acts) || i < len(changes) && !changes[i].At.After(acts[j].At) {
			e := changeEntry(&changes[i])
			a.bindHead(&e)
			entries = append(entries, e)
			c.Change = changes[i].ID
			i++
		} else {
			entries = append(entries, actEntry(&acts[j]))
			c.Act = acts[j].ID
			j++
		}
	}
	if err := a.ledger.AppendAll(ctx, entries); err != nil {
		return false, err
	}
	a.copied = c
	return max(len(changes), len(acts)) == ledgerBatch, a.saveCursor(ctx)
}

// saveCursor keeps how far the ledger is, and its checkpoint, from which a later one must continue.
func (a *Authority) saveCursor(ctx context.Context) error {
	cp, err := a.ledger.Reader().Checkpoint(ctx)
	if err != nil {
		return err
	}
	a.copied.Checkpoint = cp.Text
	b, err := json.Marshal(a.copied)
	if err != nil {
		return err
	}
	return a.store.PutSettings(ctx, map[string][]byte{ledgerCursor: b}, nil)
}

// timed makes sure that no row of the database keeps those after it out of the ledger.
func timed(t time.Time) time.Time {
	if t.IsZero() {
		return time.Unix(0, 0)
	}
	return t
}

func changeEntry(c *store.Change) ledger.Entry {
	e := ledger.Entry{
		Time: timed(c.At), Kind: ledger.Verdict, Node: c.Node, Actor: "aias", Decision: c.To, Reason: c.Reason, Ref: "history/" + strconv.FormatInt(c.ID, 10),
		Detail: map[string]string{"from": c.From, "cause": c.Cause, "snapshot": c.Snapshot},
	}
	if c.Cause == protocol.CauseEnrolment || c.Cause == protocol.CauseOperator {
		e.Kind = ledger.Enrolment
	}
	return e
}

// actKinds says which acts of operators are more than an act, by what their name begins with.
var actKinds = []struct {
	prefix string
	kind   ledger.Kind
}{
	{"tags.", ledger.Tag},
	{"image-key.create", ledger.KeyCreated},
	{"image-key.", ledger.KeyRevoked},
	{"disk.bind", ledger.KeyCreated},
	{"disk.rotate", ledger.KeyRotated},
	{"disk.revoke", ledger.KeyRevoked},
	{"disk.unrevoke", ledger.KeyRevoked},
	{"disk.destroy", ledger.KeyRevoked},
	{"keys.rotate", ledger.KeyRotated},
}

func actEntry(c *store.Act) ledger.Entry {
	e := ledger.Entry{
		Time: timed(c.At), Kind: ledger.Act, Actor: "operator:" + c.Operator, Subject: c.Object, Decision: c.Act, Reason: c.Detail,
		Ref: "acts/" + strconv.FormatInt(c.ID, 10),
	}
	for _, k := range actKinds {
		if strings.HasPrefix(c.Act, k.prefix) {
			e.Kind = k.kind
			break
		}
	}
	return e
}
