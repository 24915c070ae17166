package archive

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
)

// Missing names entries that are not here, or not any more. Last is 0 when it is not known.
type Missing struct {
	Chain       chain.ID
	First, Last uint64
	Why         string
}

// After calls fn with what came behind an entry of a chain, oldest first, without what it had already; the zero chain stands for the beginning. What
// is not here is named in its place: exactly one of Place and Missing is there. Unlike From it never ends early because a block is gone or damaged.
func (n *Node) After(ctx context.Context, id chain.ID, seq uint64, fn func(*Place, *Missing) error) error {
	for {
		again, err := n.after(ctx, &id, &seq, fn)
		if !again || err != nil {
			return err
		}
	}
}

// after goes through the blocks that are there now. It asks to be called again when a file went away meanwhile: compacted, or removed for its age.
func (n *Node) after(ctx context.Context, id *chain.ID, seq *uint64, fn func(*Place, *Missing) error) (again bool, err error) {
	blocks, known := n.behind(*id, *seq)
	if !known {
		if err := fn(nil, &Missing{Chain: *id, First: *seq + 1, Why: "the archive had no room for them any more, or was put back"}); err != nil {
			return false, err
		}
		*id, *seq = chain.ID{}, 0
	}
	for _, b := range blocks {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if b.before.Chain != *id {
			*id, *seq = b.before.Chain, 0
		}
		if b.before.Seq > *seq {
			if err := fn(nil, &Missing{Chain: *id, First: *seq + 1, Last: b.before.Seq, Why: "the archive does not have them"}); err != nil {
				return false, err
			}
			*seq = b.before.Seq
		}
		batch, err := b.read()
		if errors.Is(err, os.ErrNotExist) {
			return true, nil
		}
		if err == nil {
			batch, err = behind(batch, *seq)
		}
		if err != nil {
			err = fn(nil, &Missing{Chain: *id, First: *seq + 1, Last: b.after.Seq, Why: fmt.Sprint("the archive cannot be read there: ", err)})
		} else {
			err = fn(&Place{Batch: batch, Received: time.Unix(0, b.received).UTC()}, nil)
		}
		if err != nil {
			return false, err
		}
		*seq = b.after.Seq
	}
	return false, nil
}

// behind returns the blocks with entries behind a place. It reports false, and returns all, when the place is of a chain that is gone.
func (n *Node) behind(id chain.ID, seq uint64) ([]*block, bool) {
	blocks := n.blocks(Query{})
	if id == (chain.ID{}) {
		return blocks, true
	}
	for i := len(blocks) - 1; i >= 0; i-- {
		b := blocks[i]
		if b.before.Chain != id {
			continue
		}
		if b.after.Seq <= seq {
			return blocks[i+1:], true
		}
		if i == 0 || blocks[i-1].before.Chain != id {
			return blocks[i:], true
		}
	}
	return blocks, n.Cut().Chain == id || n.Position().Chain == id
}

// Names are the nodes that have a folder in the archive.
func (a *Archive) Names() ([]string, error) {
	folders, err := filepath.Glob(filepath.Join(a.opt.Dir, "n-*"))
	var out []string
	for _, f := range folders {
		if name, err := url.PathUnescape(strings.TrimPrefix(filepath.Base(f), "n-")); err == nil {
			out = append(out, name)
		}
	}
	return out, err
}
