package nbde

import (
	"context"
	"fmt"
	"slices"

	"touchstone.dev/touchstone/internal/store"
)

// absent is where keys of an HSM are while none is configured. Their public parts are in the store, so that whatever else a node has goes on.
type absent struct{}

func (absent) err(id string) error {
	return fmt.Errorf("the key is in an HSM, as %.60q: set disks.hsm to the token that has it, or to a restored copy of that", id)
}

// NewExchange is not called: without an HSM new keys are made in memory.
func (a absent) NewExchange(context.Context, string) (string, []byte, error) {
	return "", nil, a.err("")
}

// Exchange has no answer.
func (a absent) Exchange(id string, _ []byte) ([]byte, error) { return nil, a.err(id) }

// Destroy destroys nothing.
func (a absent) Destroy(_ context.Context, id string) error { return a.err(id) }

// lost tells whether nobody knows where the private part is. Nothing new may be bound to such a key: it is not advertised.
func (k *Key) lost() bool { return k.hsm == HSM(absent{}) }

// Lost are the exchange keys that are in an HSM, and cannot be used with the one that is there.
type Lost struct {
	Keys  int
	Of    int      // all keys in an HSM
	Nodes []string // whose they are, sorted; "" for keys that all share
	Why   error    // of the first
}

// LostKeys tries each key of the store that is in an HSM, with a point of its own: whether the HSM has the key of that name, and whether it is that key. h may
// be nil. The error is that a key cannot be opened.
func LostKeys(ctx context.Context, rows []store.DiskKey, seal Sealer, h HSM) (*Lost, error) {
	out := &Lost{}
	for _, row := range rows {
		k, err := (&stored{DiskKey: row}).open(ctx, seal, h)
		if err != nil {
			return nil, err
		}
		if k.hsm == nil {
			continue
		}
		out.Of++
		if err = k.try(); err == nil {
			continue
		}
		if out.Keys++; out.Why == nil {
			out.Why = err
		}
		if !slices.Contains(out.Nodes, row.Node) {
			out.Nodes = append(out.Nodes, row.Node)
		}
	}
	slices.Sort(out.Nodes)
	return out, nil
}

// try recovers for a client that is made up.
func (k *Key) try() error {
	client, err := NewKey(k.Curve)
	if err != nil {
		return err
	}
	_, err = k.Recover(client.public)
	return err
}
