package archive

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
)

// Kinds of findings.
const (
	Fork     = "fork"        // another entry than the one that is here, or that was signed
	Restart  = "restart"     // a new chain
	Hole     = "hole"        // entries that never came
	Rollback = "rolled-back" // less was signed than before
	Boot     = "boot"        // a boot that the TPM knows nothing of
	Reset    = "tpm-reset"   // a reset of the TPM beneath a system that went on
)

// Finding is something that an honest worker does not do. It stands until a person accepts it.
type Finding struct {
	Kind     string     `json:"kind"`
	At       time.Time  `json:"at"`
	Seq      uint64     `json:"seq"`
	Last     uint64     `json:"last,omitempty"` // of a hole
	Expected string     `json:"expected,omitempty"`
	Observed string     `json:"observed,omitempty"`
	Accepted *time.Time `json:"accepted,omitempty"`
	By       string     `json:"by,omitempty"`
}

// Stated is a head that the TPM of the node signed.
type Stated struct {
	Chain string    `json:"chain"`
	Seq   uint64    `json:"seq"`
	Head  string    `json:"head"`
	At    time.Time `json:"at"`
}

// Cut is where the archive begins, when older entries were removed.
type Cut struct {
	Chain string    `json:"chain,omitempty"`
	Seq   uint64    `json:"seq,omitempty"` // of the last entry that was removed
	Head  string    `json:"head,omitempty"`
	At    time.Time `json:"at,omitzero"`
}

func (c *Cut) position() chain.Position {
	var p chain.Position
	id, err1 := hex.DecodeString(c.Chain)
	head, err2 := hex.DecodeString(c.Head)
	if err1 == nil && err2 == nil && len(id) == len(p.Chain) && len(head) == len(p.Head) {
		copy(p.Chain[:], id)
		copy(p.Head[:], head)
		p.Seq = c.Seq
	}
	return p
}

// book is the small file of a node.
type book struct {
	Findings []Finding `json:"findings,omitempty"`
	Stated   *Stated   `json:"stated,omitempty"`  // the newest
	Sealed   *Stated   `json:"sealed,omitempty"`  // the newest whose entries are here, and agree
	Waiting  []Stated  `json:"waiting,omitempty"` // whose entries are not here yet, oldest first
	Cut      Cut       `json:"cut,omitzero"`
	Restored Cut       `json:"restored,omitzero"` // where a backup was made that this was restored from
	Chains   []string  `json:"chains,omitempty"`  // that were removed whole
	Lost     uint64    `json:"lost,omitempty"`    // the kernel's counter in the newest statement
	Boot     string    `json:"boot,omitempty"`    // id in the newest statement
	Boots    boots     `json:"boots,omitzero"`
	Grown    []Growth  `json:"grown,omitempty"`
}

// Growth is how much was lost at a time.
type Growth struct {
	At   time.Time `json:"at"`
	Lost uint64    `json:"lost,omitempty"`
	Gaps uint64    `json:"gaps,omitempty"`
}

const (
	maxFindings = 64
	maxWaiting  = 64
	maxGrown    = 64
	bookName    = "book.json"
	maxBook     = 1 << 20
)

func (n *Node) loadBook() error {
	b, err := os.ReadFile(filepath.Join(n.dir, bookName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, &n.book)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", bookName, err)
	}
	return nil
}

// change changes the book and makes that durable.
func (n *Node) change(fn func(*book)) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	fn(&n.book)
	b, err := json.Marshal(&n.book)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return err
	}
	tmp := filepath.Join(n.dir, "."+bookName)
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(n.dir, bookName)); err != nil {
		return err
	}
	return syncDir(n.dir)
}

// find records a finding; one that is open already is not recorded again.
func (n *Node) find(f Finding) error {
	f.At = n.opt.Now().UTC()
	n.opt.Log.Error("the audit chain of a node is not as it should be", "node", n.name, "what", f.Kind, "entry", f.Seq, "expected", f.Expected, "observed", f.Observed)
	return n.change(func(b *book) {
		for _, o := range b.Findings {
			if o.Accepted == nil && o.Kind == f.Kind && o.Seq == f.Seq {
				return
			}
		}
		if len(b.Findings) < maxFindings {
			b.Findings = append(b.Findings, f)
		} else if i := slices.IndexFunc(b.Findings, func(f Finding) bool { return f.Accepted != nil }); i >= 0 {
			b.Findings = append(slices.Delete(b.Findings, i, i+1), f)
		}
	})
}

// Accept has a person take responsibility for all open findings. It returns how many there were.
func (n *Node) Accept(by string) (count int, err error) {
	now := n.opt.Now().UTC()
	err = n.change(func(b *book) {
		for i := range b.Findings {
			if f := &b.Findings[i]; f.Accepted == nil {
				f.Accepted, f.By = &now, by
				count++
			}
		}
		b.Waiting, b.Stated = nil, nil // the next statement begins anew
	})
	return count, err
}

// noteGap counts a gap that a node told of.
func (n *Node) noteGap(now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.book.grow(now, 0, 1)
}

func (b *book) grow(now time.Time, lost, gaps uint64) {
	if k := len(b.Grown); k > 0 && now.Sub(b.Grown[k-1].At) < time.Minute {
		b.Grown[k-1].Lost += lost
		b.Grown[k-1].Gaps += gaps
		return
	}
	if len(b.Grown) >= maxGrown {
		b.Grown = slices.Delete(b.Grown, 0, 1)
	}
	b.Grown = append(b.Grown, Growth{At: now.UTC(), Lost: lost, Gaps: gaps})
}

// Cut is where the archive begins; zero when nothing was removed.
func (n *Node) Cut() chain.Position {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.book.Cut.position()
}
