package archive

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
)

// Kept is what a backup holds of a node's chain: where it stands, what was found out and what the TPM signed, but no events.
type Kept struct {
	Folder string // name of the node's folder in the archive
	Book   []byte
}

// Keep reads where all chains stand. It changes nothing, and may run beside the process that writes.
func Keep(dir string, now time.Time) ([]Kept, error) {
	folders, err := filepath.Glob(filepath.Join(dir, "n-*"))
	if err != nil {
		return nil, err
	}
	var out []Kept
	for _, folder := range folders {
		n := Node{dir: folder}
		err := n.loadBook()
		at := n.book.Cut.position()
		if err == nil {
			at, err = lastPosition(folder, at)
		}
		if err != nil {
			return nil, fmt.Errorf("read where the chain in %s stands: %w", folder, err)
		}
		if at == (chain.Position{}) {
			continue
		}
		n.book.Cut = Cut{Chain: at.Chain.String(), Seq: at.Seq, Head: at.Head.String(), At: now.UTC()}
		n.book.Restored = n.book.Cut
		book, err := json.Marshal(&n.book)
		if err != nil {
			return nil, err
		}
		out = append(out, Kept{filepath.Base(folder), book})
	}
	return out, nil
}

// lastPosition is the end of the last whole block in a folder, at when it has none.
func lastPosition(folder string, at chain.Position) (chain.Position, error) {
	names, err := filepath.Glob(filepath.Join(folder, "*"+suffix))
	slices.Sort(names)
	slices.Reverse(names)
	for _, name := range names {
		b, err := lastBlock(name)
		if errors.Is(err, fs.ErrNotExist) { // compacted, or removed for its age, meanwhile
			continue
		}
		if err != nil {
			return at, err
		}
		if b != nil {
			return b.after, nil
		}
	}
	return at, err
}

func lastBlock(path string) (*block, error) {
	f, err := os.Open(path) //nolint:gosec // of the archive
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	s := &segment{path: path}
	head := make([]byte, blockHead)
	var last *block
	for at := int64(len(segmentMagic)); ; {
		if _, err := f.ReadAt(head, at); errors.Is(err, io.EOF) {
			return last, nil
		} else if err != nil {
			return nil, err
		}
		b, err := parseBlock(head)
		if err != nil {
			return last, nil //nolint:nilerr // the rest is being written, or was when somebody ended
		}
		b.file, b.offset = s, at+blockHead
		at = b.offset + int64(b.size)
		if info, err := f.Stat(); err != nil || at > info.Size() {
			return last, err
		} else if at == info.Size() {
			if _, err := b.read(); err != nil { // a head may be written before its payload
				return last, nil //nolint:nilerr // as it says
			}
		}
		last = b
	}
}

// Plant puts what was kept into a folder where there is nothing of that node. Its chain goes on from there; what it had sent after that is a hole with a reason.
func Plant(dir string, k Kept) error {
	folder := filepath.Join(dir, "."+k.Folder)
	var b book
	if err := json.Unmarshal(k.Book, &b); err != nil {
		return fmt.Errorf("%s: %w", k.Folder, err)
	}
	if err := errors.Join(os.RemoveAll(folder), os.Mkdir(folder, 0o700)); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(folder, bookName), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(k.Book)
	if err := errors.Join(err, f.Sync(), f.Close(), syncDir(folder)); err != nil {
		return err
	}
	return os.Rename(folder, filepath.Join(dir, k.Folder))
}

// lost is the finding of a hole. Where AIAS was restored, and nothing came since, it is explained: nobody needs to accept it, and it stays on record.
func (n *Node) lost(at chain.Position, next uint64) *Finding {
	f := &Finding{Kind: Hole, Seq: at.Seq + 1, Last: next, Observed: "the worker does not have them any more"}
	n.mu.Lock()
	defer n.mu.Unlock()
	if r := n.book.Restored; r.Chain != "" && r.position() == at {
		now := n.opt.Now().UTC()
		f.Observed = fmt.Sprintf("AIAS was restored from a backup of %s, and the worker had sent them since", r.At.Format(time.RFC3339))
		f.Accepted, f.By = &now, "aias restore"
	}
	return f
}
