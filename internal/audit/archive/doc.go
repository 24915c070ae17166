// Package archive keeps the audit chains of nodes at AIAS: in order, each entry once, durable before it is acknowledged, compressed, and
// bounded by bytes and age. Where old entries were removed, the head there is kept: what is left is still proven to follow it.
//
// A node has a folder with segments of blocks, one block for each batch that was accepted, and a small file with what was found out (forks,
// holes, chains begun anew) and stated (the heads that the node's TPM signed). A block is written and synced whole; what a crash left of
// one is cut off, as nobody was told of it.
package archive

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
)

// Errors of Append.
var (
	// ErrBehind says that entries between what is here and the batch are missing: send from Position on.
	ErrBehind = errors.New("the batch begins behind what is here")
	// ErrFork says that the batch does not follow what is here.
	ErrFork = errors.New("the batch contradicts what is here")
	// ErrFull says that the disk could not take it.
	ErrFull = errors.New("the audit archive cannot be written")
)

// Options bound the archive; zero fields get a default.
type Options struct {
	Dir      string
	MaxBytes int64         // on disk for each node; 2 GiB
	MaxAge   time.Duration // of entries; 90 days
	Segment  int64         // bytes of one file; 16 MiB
	Now      func() time.Time
	Log      *slog.Logger
	// Accepted is called with new entries when they are durable, in order for each node; nil: nobody.
	Accepted func(node string, id chain.ID, entries []chain.Entry)
}

// Archive holds the chains of all nodes. It is safe for concurrent use.
type Archive struct {
	opt   Options
	mu    sync.Mutex
	nodes map[string]*Node
}

// Open opens the archive in a folder.
func Open(opt Options) (*Archive, error) {
	if opt.MaxBytes == 0 {
		opt.MaxBytes = 2 << 30
	}
	if opt.MaxAge == 0 {
		opt.MaxAge = 90 * 24 * time.Hour
	}
	if opt.Segment == 0 {
		opt.Segment = 16 << 20
	}
	opt.Segment = min(opt.Segment, opt.MaxBytes/4)
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(opt.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the audit archive: %w", err)
	}
	return &Archive{opt: opt, nodes: map[string]*Node{}}, nil
}

func (a *Archive) folder(node string) string {
	return filepath.Join(a.opt.Dir, "n-"+url.PathEscape(node))
}

// Node opens the chains of a node; there are none at first, and nothing is written before there are.
func (a *Archive) Node(name string) (*Node, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := a.nodes[name]; n != nil {
		return n, nil
	}
	n := &Node{name: name, dir: a.folder(name), opt: &a.opt, moved: make(chan struct{})}
	if err := n.load(); err != nil {
		return nil, fmt.Errorf("open the audit archive of %s: %w", name, err)
	}
	a.nodes[name] = n
	return n, nil
}

// Remove removes the chains of a node that was removed.
func (a *Archive) Remove(name string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := a.nodes[name]; n != nil {
		n.close()
		delete(a.nodes, name)
	}
	return os.RemoveAll(a.folder(name))
}

// Close closes all files.
func (a *Archive) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range a.nodes {
		n.close()
	}
	clear(a.nodes)
}
