package archive

import (
	"errors"
	"fmt"
	"slices"

	"touchstone.dev/touchstone/internal/audit/chain"
)

// boots is what the TPM of a node said of its boots. What the node itself says of them, in entries and statements, is held against it: a boot
// is what the reset count in a quote counts, and nothing else.
type boots struct {
	Key     string   `json:"key,omitempty"`     // that signed: the counters of two keys cannot be compared
	Reset   uint32   `json:"reset,omitempty"`   // count in the newest quote
	Number  uint64   `json:"number,omitempty"`  // of the boot, from 1 when the first quote came; it never goes back
	Anchors []anchor `json:"anchors,omitempty"` // oldest first
	Told    string   `json:"told,omitempty"`    // boot id in the last entry of kind start
	Starts  []start  `json:"starts,omitempty"`  // of a new boot, that no quote covers yet
}

// anchor says up to where the chain of a node was made when its TPM signed during one boot.
type anchor struct {
	Chain  string `json:"chain"`
	Number uint64 `json:"number"`
	First  uint64 `json:"first"` // entry that the first quote covered
	Last   uint64 `json:"last"`  // and the last one
	Loose  bool   `json:"loose,omitempty"`
	Starts uint64 `json:"starts,omitempty"` // of a new boot, between the anchor before and Last
}

// start is an entry that tells of a new boot.
type start struct {
	Chain string `json:"chain"`
	Seq   uint64 `json:"seq"`
	Boot  string `json:"boot"`
	Was   string `json:"was"`
}

const (
	maxAnchors = 32
	maxStarts  = 64
)

// quoted takes in what a quote says of the boot, and returns what contradicts it.
func (b *book) quoted(s *Statement) []Finding {
	o := &b.Boots
	loose := o.Key != s.Key || s.ResetCount < o.Reset // another key, or a TPM that was cleared: nothing to compare with
	var resets uint64
	if !loose {
		resets = uint64(s.ResetCount - o.Reset)
	}
	var out []Finding
	switch {
	case loose || b.Boot == "":
	case resets == 0 && s.BootID != b.Boot:
		out = append(out, Finding{Kind: Boot, Seq: s.Position.Seq, Expected: fmt.Sprintf("boot %s, as the TPM counts no reset since (reset count %d)", clean(b.Boot), s.ResetCount),
			Observed: fmt.Sprintf("boot %s (restart count %d)", clean(s.BootID), s.RestartCount)})
	case resets > 0 && s.BootID == b.Boot:
		out = append(out, Finding{Kind: Reset, Seq: s.Position.Seq, Expected: fmt.Sprintf("another boot than %s, or reset count %d", clean(b.Boot), o.Reset),
			Observed: fmt.Sprintf("reset count %d", s.ResetCount)})
	}
	if o.Number == 0 {
		o.Number = 1
	}
	o.Key, o.Reset, o.Number = s.Key, s.ResetCount, o.Number+resets
	id, seq := s.Position.Chain.String(), s.Position.Seq
	if k := len(o.Anchors); k > 0 && !loose && o.Anchors[k-1].Chain == id && o.Anchors[k-1].Number == o.Number {
		o.Anchors[k-1].Last = max(o.Anchors[k-1].Last, seq)
	} else {
		o.Anchors = append(o.Anchors, anchor{Chain: id, Number: o.Number, First: seq, Last: seq, Loose: loose})
	}
	if len(o.Anchors) > maxAnchors { // what it covered counts as later: that ends nothing too early
		o.Anchors = slices.Delete(o.Anchors, 0, 1)
		o.Anchors[0].Loose = true
	}
	return append(out, o.settle()...)
}

// began takes in an entry of kind start.
func (o *boots) began(id string, e *chain.Entry) {
	var b chain.Begin
	if err := chain.DecodeBody(e.Body, &b); err != nil || b.BootID == "" || b.BootID == o.Told {
		return
	}
	was := o.Told
	o.Told = b.BootID
	if was == "" {
		return
	}
	if len(o.Starts) >= maxStarts { // the oldest ones are enough to contradict
		return
	}
	o.Starts = append(o.Starts, start{Chain: id, Seq: e.Seq, Boot: b.BootID, Was: was})
}

// settle counts the boots that entries tell of against the resets that the TPM counted meanwhile. An agent may write its start a moment after the
// first quote of a boot, so that the place of the entry says nothing, and only the number counts.
func (o *boots) settle() (out []Finding) {
	newest := o.newest()
	o.Starts = slices.DeleteFunc(o.Starts, func(s start) bool {
		i := slices.IndexFunc(o.Anchors, func(a anchor) bool { return a.Chain == s.Chain && a.Last >= s.Seq })
		if i < 0 {
			return newest != nil && newest.Chain != s.Chain && slices.ContainsFunc(o.Anchors, func(a anchor) bool { return a.Chain == s.Chain })
		}
		a := &o.Anchors[i]
		if a.Loose && s.Seq <= a.First {
			return true
		}
		a.Starts++
		resets := uint64(1) // of a loose one: the start that comes a moment late
		if !a.Loose && i > 0 {
			resets = a.Number - o.Anchors[i-1].Number
		}
		if a.Starts > resets {
			out = append(out, Finding{Kind: Boot, Seq: s.Seq, Expected: fmt.Sprintf("boot %s: the TPM counts %d resets around this entry", clean(s.Was), resets),
				Observed: fmt.Sprintf("an entry that begins boot %s", clean(s.Boot))})
		}
		return true
	})
	return out
}

func (o *boots) newest() *anchor {
	if len(o.Anchors) == 0 {
		return nil
	}
	return &o.Anchors[len(o.Anchors)-1]
}

// BootOf returns the number of the boot that an entry is of at the latest, by what the TPM signed; 0 when no quote covers the entry yet. An entry of a
// chain that is no longer gone on with counts as covered by the newest quote.
func (n *Node) BootOf(id string, seq uint64) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	o := &n.book.Boots
	for _, a := range o.Anchors {
		if a.Chain == id && a.Last >= seq {
			return a.Number
		}
	}
	if a := o.newest(); a != nil && a.Chain != id && id != n.at.Chain.String() {
		return a.Number
	}
	return 0
}

// Boot is the number of the present boot, counted by the TPM; 0 when none was quoted.
func (n *Node) Boot() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.book.Boots.Number
}

// clean keeps a text of a worker short; statements and entries bound it otherwise.
func clean(s string) string {
	const most = 64
	if len(s) > most {
		s = s[:most] + "..."
	}
	return fmt.Sprintf("%q", s)
}

// begin takes in the entries of a batch that tell of a start.
func (n *Node) begin(id string, starts []*chain.Entry) error {
	if len(starts) == 0 {
		return nil
	}
	var odd []Finding
	err := n.change(func(b *book) {
		for _, e := range starts {
			b.Boots.began(id, e)
		}
		odd = b.Boots.settle()
	})
	return errors.Join(err, n.findAll(odd))
}

func (n *Node) findAll(odd []Finding) error {
	for _, f := range odd {
		if err := n.find(f); err != nil {
			return err
		}
	}
	return nil
}
