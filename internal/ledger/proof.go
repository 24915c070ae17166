package ledger

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/client"
)

// Proof shows to anybody with the ledger's public key that an entry is in it. It needs nothing else.
type Proof struct {
	Index      uint64   `json:"index"`
	Entry      string   `json:"entry"`      // as it was hashed
	Hashes     [][]byte `json:"hashes"`     // inclusion proof (RFC 6962, 2.1.1)
	Checkpoint string   `json:"checkpoint"` // that it leads to
}

const maxProof = 1 << 20 // bytes of a proof as JSON

// Prove makes the proof of one entry, and checks it.
func (r *Reader) Prove(ctx context.Context, cp *Checkpoint, index uint64) (*Proof, error) {
	if index >= cp.Size {
		return nil, fmt.Errorf("there is no entry %d: the checkpoint commits to %d", index, cp.Size)
	}
	p := &Proof{Index: index, Checkpoint: cp.Text}
	for e, err := range r.raw(ctx, cp, index) {
		if err != nil {
			return nil, err
		}
		p.Entry = string(e.data)
		break
	}
	b, err := client.NewProofBuilder(ctx, cp.Size, r.source.ReadTile)
	if err == nil {
		p.Hashes, err = b.InclusionProof(ctx, index)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: its hashes: %w", ErrTampered, err)
	}
	_, err = r.CheckProof(p)
	return p, err
}

// CheckProof returns the entry that a proof proves.
func (r *Reader) CheckProof(p *Proof) (Entry, error) {
	cp, err := r.Parse([]byte(p.Checkpoint))
	if err != nil {
		return Entry{}, err
	}
	if p.Index >= cp.Size {
		return Entry{}, fmt.Errorf("%w: entry %d of %d", ErrTampered, p.Index, cp.Size)
	}
	leaf := rfc6962.DefaultHasher.HashLeaf([]byte(p.Entry))
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, p.Index, cp.Size, leaf, p.Hashes, cp.Root); err != nil {
		return Entry{}, fmt.Errorf("%w: entry %d is not what the checkpoint commits to: %w", ErrTampered, p.Index, err)
	}
	return Decode([]byte(p.Entry))
}

// ParseProof reads a proof from JSON.
func ParseProof(data []byte) (*Proof, error) {
	if len(data) > maxProof {
		return nil, fmt.Errorf("a proof of %d bytes: at most %d", len(data), maxProof)
	}
	p := new(Proof)
	if err := json.Unmarshal(data, p); err != nil {
		return nil, fmt.Errorf("proof: %w", err)
	}
	return p, nil
}
