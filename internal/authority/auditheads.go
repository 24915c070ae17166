package authority

import (
	"context"
	"strconv"
	"time"

	"touchstone.dev/touchstone/internal/audit/archive"
	"touchstone.dev/touchstone/internal/audit/proof"
	"touchstone.dev/touchstone/internal/ledger"
)

// headsEvery is how often the signed head of a node's chain goes into the ledger when its verdict does not change. From then on AIAS itself cannot
// change what the head covers without contradicting its ledger.
const headsEvery = time.Hour

// headed is the head of a node that the ledger got last.
type headed struct {
	at     time.Time
	sealed archive.Stated
}

// sealedHead is the newest head that the TPM of a node signed and whose entries are here.
func (a *Authority) sealedHead(name string) *archive.Stated {
	f, err := a.audit.archive.Node(name)
	if err != nil {
		return nil // said by whoever needs the archive
	}
	return f.Sealed()
}

func headText(s *archive.Stated) string {
	p, err := proof.Position(s.Chain, strconv.FormatUint(s.Seq, 10), s.Head)
	if err != nil {
		return "" // the archive wrote it: not reached
	}
	return proof.Text(p)
}

// bindHead adds to an entry on a node where its audit chain stands.
func (a *Authority) bindHead(e *ledger.Entry) {
	if s := a.sealedHead(e.Node); s != nil {
		if text := headText(s); text != "" {
			e.Detail[proof.Detail] = text
		}
	}
}

// ledgerHeads writes the heads into the ledger that are due.
func (a *Authority) ledgerHeads(ctx context.Context) {
	if a.ledger == nil {
		return
	}
	now := a.now()
	var entries []ledger.Entry
	due := map[*node]headed{}
	for _, n := range a.all() {
		s := a.sealedHead(n.name)
		if s == nil || *s == n.headed.sealed || now.Sub(n.headed.at) < headsEvery {
			continue
		}
		e := ledger.Entry{Time: now, Kind: ledger.AuditHead, Node: n.name, Actor: "aias", Decision: "signed", Detail: map[string]string{}}
		if text := headText(s); text != "" {
			e.Detail[proof.Detail] = text
			entries, due[n] = append(entries, e), headed{now, *s}
		}
	}
	if len(entries) == 0 {
		return
	}
	if err := a.ledger.AppendAll(ctx, entries); err != nil {
		if ctx.Err() == nil {
			a.metrics.ledger.Inc()
			a.log.Error("heads of audit chains cannot go into the ledger: trying again", "err", err)
		}
		return
	}
	for n, h := range due {
		n.headed = h
	}
}
