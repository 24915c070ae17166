package export

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
)

// place is behind which entry of which chain to go on; the zero place is the beginning.
type place struct {
	Chain string `json:"chain"`
	Seq   uint64 `json:"seq"`
}

// cursors are how far each node's entries are at a destination.
type cursors struct {
	path string

	mu      sync.Mutex
	sure    map[string]place // on disk, or about to be
	sent    map[string]place // further than sure
	pending []sending
	changed bool
}

// sending is what is not sure yet.
type sending struct {
	node string
	to   place
	at   time.Time
}

// openCursors reads the file. It reports false when there is none.
func openCursors(path string) (*cursors, bool, error) {
	c := &cursors{path: path, sure: map[string]place{}, sent: map[string]place{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return c, false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &c.sure)
	}
	if err != nil {
		return nil, false, fmt.Errorf("read how far audit events were exported: %w: remove the file, and it begins with what comes", err)
	}
	return c, true, nil
}

// next is where to go on with a node.
func (c *cursors) next(node string) place {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.sent[node]; ok {
		return p
	}
	return c.sure[node]
}

// took says that the destination was given everything up to a place.
func (c *cursors) took(node string, p place, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent[node] = p
	c.pending = append(c.pending, sending{node, p, at})
}

// settle makes sure what was sent before a time, and writes it down.
func (c *cursors) settle(before time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := 0
	for ; k < len(c.pending) && !c.pending[k].at.After(before); k++ {
		p := c.pending[k]
		c.sure[p.node], c.changed = p.to, true
		if c.sent[p.node] == p.to {
			delete(c.sent, p.node)
		}
	}
	c.pending = c.pending[k:]
	if !c.changed {
		return nil
	}
	if err := c.write(); err != nil {
		return err
	}
	c.changed = false
	return nil
}

// back forgets what is not sure, and returns the nodes.
func (c *cursors) back() (nodes []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for node := range c.sent {
		nodes = append(nodes, node)
	}
	clear(c.sent)
	c.pending = nil
	return nodes
}

func (c *cursors) write() error {
	b, err := json.Marshal(c.sure)
	if err != nil {
		return err
	}
	tmp := c.path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, c.path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(c.path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// id is the chain of a place.
func (p place) id() (id chain.ID) {
	if q, err := parseID(p.Chain); err == nil {
		id = q
	}
	return id
}
