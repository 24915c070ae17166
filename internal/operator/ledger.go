package operator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	"github.com/transparency-dev/tessera/api/layout"

	"touchstone.dev/touchstone/internal/protocol"
)

// Ledger is the ledger of AIAS as AIAS serves it: a ledger.Source. What it answers is not believed before package ledger has verified it.
type Ledger struct{ client *Client }

// Ledger returns the ledger of AIAS.
func (c *Client) Ledger() *Ledger { return &Ledger{c} }

// Key returns the public key that AIAS says is the ledger's. Who verifies it against AIAS itself keeps the key from before.
func (l *Ledger) Key(ctx context.Context) (string, error) {
	var b []byte
	err := l.client.do(ctx, http.MethodGet, protocol.PathLedgerKey, nil, &b)
	return strings.TrimSpace(string(b)), err
}

// ReadCheckpoint returns the newest checkpoint.
func (l *Ledger) ReadCheckpoint(ctx context.Context) ([]byte, error) {
	return l.get(ctx, protocol.PathLedgerCheckpoint)
}

// ReadTile returns hashes.
func (l *Ledger) ReadTile(ctx context.Context, level, index uint64, partial uint8) ([]byte, error) {
	return l.tile(ctx, partial, func(p uint8) string { return layout.TilePath(level, index, p) })
}

// ReadEntryBundle returns entries.
func (l *Ledger) ReadEntryBundle(ctx context.Context, index uint64, partial uint8) ([]byte, error) {
	return l.tile(ctx, partial, func(p uint8) string { return layout.EntriesPath(index, p) })
}

// tile asks for a tile that is not full yet, and for the full one when it has become that meanwhile.
func (l *Ledger) tile(ctx context.Context, partial uint8, path func(uint8) string) ([]byte, error) {
	prefix, _, _ := strings.Cut(protocol.PathLedgerTile, "tile/")
	b, err := l.get(ctx, prefix+path(partial))
	if partial != 0 && errors.Is(err, fs.ErrNotExist) {
		return l.get(ctx, prefix+path(0))
	}
	return b, err
}

func (l *Ledger) get(ctx context.Context, path string) ([]byte, error) {
	var b []byte
	err := l.client.do(ctx, http.MethodGet, path, nil, &b)
	var p *protocol.Problem
	if errors.As(err, &p) && p.Status == http.StatusNotFound {
		return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return b, err
}
