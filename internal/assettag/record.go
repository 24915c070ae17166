package assettag

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Size is the size of a record in bytes.
const Size = signedSize + 2*scalarSize

// Layout of a record, all numbers big endian: magic, version, three zeros, serial (8), issued (8, Unix seconds), SHA-256 of the endorsement key's
// SubjectPublicKeyInfo, of the node's name and of the tags, then r and s of the signature over what comes before.
const (
	magic      = "TSAT"
	version    = 1
	headSize   = 8
	signedSize = headSize + 8 + 8 + 3*sha256.Size
	scalarSize = 32
)

// What can be wrong with a record.
var (
	ErrForm      = errors.New("no asset tag record")
	ErrSignature = errors.New("the asset tag record is not signed by this AIAS")
)

// Document is what AIAS says of one TPM.
type Document struct {
	Node   string
	EK     [sha256.Size]byte // SHA-256 of the SubjectPublicKeyInfo of the endorsement key
	Serial uint64            // counts up with each change of the node's tags
	Issued time.Time         // to the second
	Tags   map[string]string
}

// Sign returns the record of d, signed by a key on P-256.
func (d *Document) Sign(key *ecdsa.PrivateKey) ([]byte, error) {
	if key.Curve != elliptic.P256() {
		return nil, errors.New("asset tags are signed by a key on P-256")
	}
	if err := Validate(d.Tags); err != nil {
		return nil, err
	}
	b := make([]byte, headSize, Size)
	copy(b, magic)
	b[len(magic)] = version
	b = binary.BigEndian.AppendUint64(b, d.Serial)
	b = binary.BigEndian.AppendUint64(b, uint64(d.Issued.Unix()))
	node, tags := sha256.Sum256([]byte(d.Node)), digest(d.Tags)
	b = append(append(append(b, d.EK[:]...), node[:]...), tags[:]...)
	sum := sha256.Sum256(b)
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		return nil, fmt.Errorf("sign the asset tag: %w", err)
	}
	b = b[:Size]
	r.FillBytes(b[signedSize : signedSize+scalarSize])
	s.FillBytes(b[signedSize+scalarSize:])
	return b, nil
}

// Record is a record as it was read: nothing about it is true before Verify says so.
type Record struct {
	Serial uint64
	Issued time.Time
	EK     [sha256.Size]byte
	Node   [sha256.Size]byte // SHA-256 of the name
	Tags   [sha256.Size]byte // see Document

	raw []byte
}

// Parse reads a record. Errors wrap ErrForm.
func Parse(b []byte) (*Record, error) {
	if len(b) != Size || string(b[:len(magic)]) != magic || b[4] != version || b[5]|b[6]|b[7] != 0 {
		return nil, fmt.Errorf("%w: want %d bytes that begin with %s and version %d", ErrForm, Size, magic, version)
	}
	r := &Record{
		Serial: binary.BigEndian.Uint64(b[headSize:]), Issued: time.Unix(int64(binary.BigEndian.Uint64(b[headSize+8:])), 0).UTC(),
		raw: b,
	}
	hashes := b[headSize+16 : signedSize]
	copy(r.EK[:], hashes)
	copy(r.Node[:], hashes[sha256.Size:])
	copy(r.Tags[:], hashes[2*sha256.Size:])
	return r, nil
}

// Verify checks the signature by the key of AIAS. Errors wrap ErrSignature.
func (r *Record) Verify(key *ecdsa.PublicKey) error {
	if key == nil || key.Curve != elliptic.P256() {
		return fmt.Errorf("%w: there is no key to verify with", ErrSignature)
	}
	sum := sha256.Sum256(r.raw[:signedSize])
	x, y := new(big.Int).SetBytes(r.raw[signedSize:signedSize+scalarSize]), new(big.Int).SetBytes(r.raw[signedSize+scalarSize:])
	if !ecdsa.Verify(key, sum[:], x, y) {
		return ErrSignature
	}
	return nil
}

// IsFor reports whether the record was issued for a node name and an endorsement key.
func (r *Record) IsFor(node string, ek [sha256.Size]byte) bool {
	return r.Node == sha256.Sum256([]byte(node)) && r.EK == ek
}

// Holds reports whether the record was issued for exactly these tags.
func (r *Record) Holds(tags map[string]string) bool { return r.Tags == digest(tags) }
