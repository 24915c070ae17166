package ledger

import (
	"errors"
	"fmt"
	"os"
)

// spares is how many file descriptors are kept back for writing to the tree. A batch opens a lock and a handful of files, one after the other.
const spares = 16

// errDescriptors is what a batch fails with when there are none left to write it with.
var errDescriptors = errors.New("no file descriptors are left to write the ledger with: raise the limit of open files (LimitNOFILE, ulimit -n), or find out what holds them")

// reserve keeps file descriptors back. Tessera ends the process when it cannot open its lock, so the tree gets a batch only when it can: the reserve is let go for as
// long as the batch is written, and has to be whole again before the next one. Until then entries wait in the journal, which is open. Not for concurrent use.
type reserve struct{ files []*os.File }

// fill makes the reserve whole. The error wraps errDescriptors.
func (r *reserve) fill() error {
	for len(r.files) < spares {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return fmt.Errorf("%w: %w", errDescriptors, err)
		}
		r.files = append(r.files, f)
	}
	return nil
}

// release lets the reserve go.
func (r *reserve) release() {
	for _, f := range r.files {
		_ = f.Close()
	}
	r.files = r.files[:0]
}
