// Package chain makes what happened on a worker tamper-evident: a hash chain of audit events and of gaps between them, a spool that
// keeps it on the worker's disk until AIAS has it, and the batches that it travels in.
//
// The entries of a chain are numbered from 1. The head after entry i is
//
//	h(0) = SHA-256("touchstone audit chain 1" || id)        h(i) = SHA-256(h(i-1) || entry i)
//
// where id are 16 random bytes that were drawn when the chain was begun, and an entry is hashed in the one form that Append writes and
// Parse takes. Heads are signed by the TPM with each attestation: whoever rewrites or cuts off what a signed head covers contradicts it.
// What this cannot show: an event that somebody with all rights kept away from the chain before it was added.
//
// Nothing is dropped silently. What finds no room becomes a Gap with a number and the events around it, which is an entry like others.
package chain

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
)

// Errors that this package wraps.
var (
	// ErrEntry says that bytes are not an entry, or a batch of entries, in the one form.
	ErrEntry = errors.New("not an entry of an audit chain")
	// ErrBroken says that entries do not follow each other.
	ErrBroken = errors.New("the audit chain is broken")
)

// label separates these hashes from all others.
const label = "touchstone audit chain 1"

// ID names a chain: random, of the moment when it was begun.
type ID [16]byte

// String returns the ID in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Head is the hash over a chain up to an entry.
type Head [sha256.Size]byte

// String returns the head in hexadecimal.
func (h Head) String() string { return hex.EncodeToString(h[:]) }

// Genesis is the head of an empty chain.
func Genesis(id ID) Head {
	return sha256.Sum256(append([]byte(label), id[:]...))
}

// Next is the head after an entry that follows h.
func (h Head) Next(entry []byte) Head {
	d := sha256.New()
	d.Write(h[:])
	d.Write(entry)
	d.Sum(h[:0])
	return h
}

// Position is a place in a chain: after the entry with number Seq, 0 at its beginning.
type Position struct {
	Chain ID
	Seq   uint64
	Head  Head
}

// Start is the position at the beginning of a chain.
func Start(id ID) Position { return Position{Chain: id, Head: Genesis(id)} }

// After is the position behind an entry that follows p.
func (p Position) After(entry []byte) Position {
	return Position{Chain: p.Chain, Seq: p.Seq + 1, Head: p.Head.Next(entry)}
}
