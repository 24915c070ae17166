// Package proof computes an audit chain anew, entry by entry, and holds it against heads that AIAS cannot change any more: those that the worker's TPM signed,
// and those that stand in the ledger. What is missing or was changed is named by its place.
package proof

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/protocol"
)

// Head is a place in a chain that something vouches for.
type Head struct {
	At   chain.Position
	By   string    // "the TPM signed", "ledger entry 17"
	Time time.Time // when that was written
	met  bool
	bad  bool
}

// Gap is one that the worker told of.
type Gap struct {
	Seq uint64 `json:"seq"`
	chain.Gap
}

// Proof is what was found out. Faults contradict that the events are complete; gaps that the worker told of do not.
type Proof struct {
	Node    string             `json:"node"`
	Entries uint64             `json:"entries"`
	Events  uint64             `json:"events"`
	From    protocol.AuditAck  `json:"from"` // what the first entry follows
	At      protocol.AuditAck  `json:"at"`
	Signed  *protocol.AuditAck `json:"signed,omitempty"` // the head in the newest Evidence
	Heads   int                `json:"heads"`            // that the chain went through
	Older   int                `json:"older,omitempty"`  // of entries that AIAS removed for their age
	Gaps    []Gap              `json:"gaps,omitempty"`
	Faults  []string           `json:"faults,omitempty"`

	report *protocol.AuditReport
	heads  map[place][]*Head
	at     chain.Position
	oldest time.Time      // when the first batch came
	agreed chain.Position // the last head that agreed
	chains map[chain.ID]bool
}

type place struct {
	id  chain.ID
	seq uint64
}

// maxFaults bounds what is named one by one.
const maxFaults = 1000

// New begins with a node that AIAS says this of.
func New(node string, report *protocol.AuditReport, heads []Head) *Proof {
	p := &Proof{Node: node, report: report, heads: map[place][]*Head{}, chains: map[chain.ID]bool{}}
	for i := range heads {
		h := &heads[i]
		k := place{h.At.Chain, h.At.Seq}
		p.heads[k] = append(p.heads[k], h)
	}
	return p
}

// Batch goes on through a batch that AIAS received at a time, in the order in which they came.
func (p *Proof) Batch(received time.Time, b *chain.Batch) {
	switch {
	case p.Entries == 0:
		p.From, p.oldest = Ack(b.Before), received
		if c := p.report.Cut; c != nil && c.Chain == p.From.Chain && b.Before.Seq > c.Seq {
			p.fault("entries %d to %d are missing%s", c.Seq+1, b.Before.Seq, p.reason(c.Seq+1, b.Before.Seq))
		} else if b.Before.Seq > 0 && (p.report.Cut == nil || p.From != *p.report.Cut) {
			p.fault("the first entry is %d: those before it are gone, and no cut of the archive accounts for them", b.Before.Seq+1)
		}
	case b.Before.Chain != p.at.Chain:
		if b.Before != chain.Start(b.Before.Chain) {
			p.fault("chain %v begins with entry %d", b.Before.Chain, b.Before.Seq+1)
		}
	case b.Before.Seq > p.at.Seq:
		p.fault("entries %d to %d are missing%s", p.at.Seq+1, b.Before.Seq, p.reason(p.at.Seq+1, b.Before.Seq))
	case b.Before != p.at:
		p.fault("entry %d does not follow the one before it", b.Before.Seq+1)
	}
	p.at = b.Before
	p.chains[p.at.Chain] = true
	p.pass()
	for _, raw := range b.Entries {
		p.at = p.at.After(raw)
		p.pass()
		p.Entries++
		e, err := chain.Parse(raw)
		if err != nil {
			p.fault("entry %d: %v", p.at.Seq, err)
			continue
		}
		switch e.Kind {
		case chain.KindEvent:
			p.Events++
		case chain.KindGap:
			g := Gap{Seq: e.Seq}
			if err := chain.DecodeBody(e.Body, &g.Gap); err != nil {
				p.fault("entry %d: %v", p.at.Seq, err)
			}
			p.Gaps = append(p.Gaps, g)
		}
	}
}

// reason is what AIAS knows of entries that are missing, and that somebody accepted.
func (p *Proof) reason(first, last uint64) string {
	for _, f := range p.report.Findings {
		if f.Seq == first && f.Last == last && !f.Accepted.IsZero() {
			return fmt.Sprintf(": %s (accepted by %s, %s)", f.Observed, f.By, stamp(f.Accepted))
		}
	}
	return ""
}

// pass compares the heads at the present place.
func (p *Proof) pass() {
	for _, h := range p.heads[place{p.at.Chain, p.at.Seq}] {
		switch {
		case h.met || h.bad:
		case h.At.Head == p.at.Head:
			h.met = true
			p.Heads++
			p.agreed = p.at
		default:
			h.bad = true
			from := uint64(1)
			if p.agreed.Chain == p.at.Chain {
				from = p.agreed.Seq + 1
			}
			p.fault("entries %d to %d are not what they were: %s head %v after entry %d (%s), and here it is %v", from, p.at.Seq, h.By, h.At.Head, h.At.Seq, stamp(h.Time), p.at.Head)
		}
	}
}

// Finish says what was not met.
func (p *Proof) Finish() {
	p.At = Ack(p.at)
	var left []*Head
	for _, hs := range p.heads {
		for _, h := range hs {
			if !h.met && !h.bad {
				left = append(left, h)
			}
		}
	}
	slices.SortFunc(left, func(a, b *Head) int { return a.Time.Compare(b.Time) })
	gone := map[chain.ID]*Head{} // the farthest head behind the end of a chain
	for _, h := range left {
		switch cut := p.report.Cut; {
		case p.removed(h, cut):
			p.Older++
		case h.At.Chain == p.at.Chain && h.At.Seq > p.at.Seq:
			if g := gone[h.At.Chain]; g == nil || g.At.Seq < h.At.Seq {
				gone[h.At.Chain] = h
			}
		default:
			p.fault("%s entry %d of chain %v (%s): it is not here", h.By, h.At.Seq, h.At.Chain, stamp(h.Time))
		}
	}
	for _, h := range gone {
		p.fault("%s entry %d (%s); AIAS has %d: entries %d to %d are missing or on their way", h.By, h.At.Seq, stamp(h.Time), p.at.Seq, p.at.Seq+1, h.At.Seq)
	}
	if r := p.report; r.At.Seq > 0 && p.At.Chain == r.At.Chain && p.At.Seq < r.At.Seq {
		p.fault("AIAS says that it has %d entries, and gave %d", r.At.Seq, p.At.Seq)
	}
	for _, f := range p.report.Findings {
		if f.Accepted.IsZero() {
			p.fault("AIAS found a %s at entry %d (%s): expected %s, observed %s", f.Kind, f.Seq, stamp(f.At), f.Expected, f.Observed)
		}
	}
}

// removed reports whether the entries of a head went when the archive removed its oldest ones. Of a chain that is gone whole the head must be older than
// what is left.
func (p *Proof) removed(h *Head, cut *protocol.AuditAck) bool {
	switch {
	case cut == nil:
		return false
	case h.At.Chain.String() == cut.Chain:
		return h.At.Seq < cut.Seq
	}
	return !p.chains[h.At.Chain] && (p.Entries == 0 || h.Time.Before(p.oldest.Add(headDelay)))
}

// headDelay is how long after the end of a chain its head may still go into the ledger.
const headDelay = 2 * time.Hour

func (p *Proof) fault(format string, args ...any) {
	switch n := len(p.Faults); {
	case n < maxFaults:
		p.Faults = append(p.Faults, fmt.Sprintf(format, args...))
	case n == maxFaults:
		p.Faults = append(p.Faults, "and more")
	}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "earlier"
	}
	return t.UTC().Format(time.RFC3339)
}

// Ack is a position as it travels.
func Ack(p chain.Position) protocol.AuditAck {
	return protocol.AuditAck{Chain: p.Chain.String(), Seq: p.Seq, Head: p.Head.String()}
}

// Detail is the name under which an entry of the ledger holds a head, and Text its form there.
const Detail = "audit"

// Text writes a head as the ledger has it.
func Text(p chain.Position) string {
	return fmt.Sprintf("chain %v entry %d head %v", p.Chain, p.Seq, p.Head)
}

// ParseText reads what Text wrote.
func ParseText(s string) (p chain.Position, err error) {
	f := strings.Fields(s)
	if len(f) == 6 && f[0] == "chain" && f[2] == "entry" && f[4] == "head" {
		p, err = Position(f[1], f[3], f[5])
	} else {
		err = fmt.Errorf("no head of an audit chain: %q", s)
	}
	return p, err
}

// Position reads a position from its texts.
func Position(id, seq, head string) (p chain.Position, err error) {
	a, err1 := hex.DecodeString(id)
	h, err2 := hex.DecodeString(head)
	n, err3 := strconv.ParseUint(seq, 10, 64)
	if err1 != nil || err2 != nil || err3 != nil || len(a) != len(p.Chain) || len(h) != len(p.Head) {
		return p, fmt.Errorf("no head of an audit chain: %q %q %q", id, seq, head)
	}
	copy(p.Chain[:], a)
	copy(p.Head[:], h)
	p.Seq = n
	return p, nil
}
