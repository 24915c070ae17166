package tpm

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
)

// Failures of certified NV content.
var (
	// ErrNotNV says that the TPM signed something else than the content of an NV index.
	ErrNotNV = errors.New("not a certification of NV content")
	// ErrNV says that nothing proves what an NV index holds.
	ErrNV = errors.New("NV content is not certified")
)

// tagNV is TPM_ST_ATTEST_NV (part 2, 6.9).
const tagNV = 0x8014

// Limits on NV structures: the largest content that a TPM certifies at once (MAX_NV_BUFFER_SIZE), and a TPMS_NV_PUBLIC.
const (
	maxNVContent = 2048
	maxNVPublic  = 4 + 2 + 4 + 2 + maxDigest + 2
)

// Attributes of an NV index (TPMA_NV, part 2, 13.4).
const (
	NVOwnerWrite uint32 = 1 << 1  // written by owner authorization
	NVWriteAll   uint32 = 1 << 12 // written whole or not at all
	NVOwnerRead  uint32 = 1 << 17 // read by owner authorization
	NVAuthRead   uint32 = 1 << 18 // read by the index's own authorization
	NVNoDA       uint32 = 1 << 25 // no dictionary attack protection
	NVWritten    uint32 = 1 << 29 // was written since it was defined
)

// NVPublic is the public area of an NV index (TPMS_NV_PUBLIC, part 2, 13.5).
type NVPublic struct {
	Index      uint32
	NameAlg    Alg
	Attributes uint32
	AuthPolicy []byte
	DataSize   uint16 // bytes of its content

	area []byte
}

// ParseNVPublic decodes a TPMS_NV_PUBLIC.
func ParseNVPublic(b []byte) (*NVPublic, error) {
	if len(b) > maxNVPublic {
		return nil, fmt.Errorf("read NV public area: %w: %d bytes, at most %d are possible", ErrMalformed, len(b), maxNVPublic)
	}
	p := &NVPublic{area: bytes.Clone(b)}
	w := wire{b: p.area}
	p.Index = w.u32()
	p.NameAlg = w.alg()
	p.Attributes = w.u32()
	p.AuthPolicy = w.sized(maxDigest)
	p.DataSize = w.u16()
	if w.err == nil && p.NameAlg.Hash() == 0 {
		w.fail(fmt.Errorf("%w: name algorithm %v", ErrUnsupported, p.NameAlg))
	}
	if err := w.end(); err != nil {
		return nil, fmt.Errorf("read NV public area: %w", err)
	}
	return p, nil
}

// Name returns the Name of the index: nameAlg and the hash of its public area (part 1, 16), so that attributes are authenticated with it.
func (p *NVPublic) Name() []byte {
	h := p.NameAlg.Hash().New()
	h.Write(p.area)
	return h.Sum(binary.BigEndian.AppendUint16(nil, uint16(p.NameAlg)))
}

// NVCertification is what TPM2_NV_Certify signed: a TPMS_ATTEST of type TPM_ST_ATTEST_NV. Byte fields alias the input; those before Name
// are those of Quote.
type NVCertification struct {
	QualifiedSigner []byte
	ExtraData       []byte
	Clock           uint64
	ResetCount      uint32
	RestartCount    uint32
	Safe            bool
	FirmwareVersion uint64
	Name            []byte // Name of the index
	Offset          uint16 // of Contents in the index
	Contents        []byte
}

// ParseNVCertify decodes a TPMS_ATTEST of NV content. Its errors are those of ParseQuote, with ErrNotNV.
func ParseNVCertify(b []byte) (*NVCertification, error) {
	w := wire{b: b}
	var q Quote
	w.attestHeader(tagNV, ErrNotNV, &q)
	c := &NVCertification{
		QualifiedSigner: q.QualifiedSigner, ExtraData: q.ExtraData, Clock: q.Clock, ResetCount: q.ResetCount,
		RestartCount: q.RestartCount, Safe: q.Safe, FirmwareVersion: q.FirmwareVersion,
		Name: w.sized(maxName), Offset: w.u16(), Contents: w.sized(maxNVContent),
	}
	if err := w.end(); err != nil {
		return nil, fmt.Errorf("read NV certification: %w", err)
	}
	return c, nil
}

// VerifyNV checks that ak certified the whole content of an NV index over nonce (TPM2_NV_Certify), and returns index and content: public is
// a TPMS_NV_PUBLIC, message a TPMS_ATTEST and signature a TPMT_SIGNATURE. What the attributes of the index must be is for the caller to
// judge, and ak must be an attestation key that is trusted already. An empty nonce is refused. Errors wrap ErrNV.
func VerifyNV(ak *Public, nonce, public, message, signature []byte) (*NVPublic, []byte, error) {
	if ak == nil || len(nonce) == 0 {
		return nil, nil, fmt.Errorf("%w: attestation key or nonce is missing", ErrNV)
	}
	p, err := ParseNVPublic(public)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrNV, err)
	}
	s, err := ParseSignature(signature)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrNV, err)
	}
	if err := ak.Verify(message, s); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrNV, err)
	}
	c, err := ParseNVCertify(message)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrNV, err)
	}
	switch {
	case subtle.ConstantTimeCompare(c.ExtraData, nonce) != 1:
		return nil, nil, fmt.Errorf("%w: certified over another nonce", ErrNV)
	case p.NameAlg == AlgSHA1:
		return nil, nil, fmt.Errorf("%w: the Name of the index is a SHA-1 hash, which another index can be made to share", ErrNV)
	case !bytes.Equal(c.Name, p.Name()):
		return nil, nil, fmt.Errorf("%w: another index is certified: got Name %x, want %x", ErrNV, c.Name, p.Name())
	case c.Offset != 0 || len(c.Contents) != int(p.DataSize):
		return nil, nil, fmt.Errorf("%w: %d bytes from %d are certified, want all %d", ErrNV, len(c.Contents), c.Offset, p.DataSize)
	}
	return p, c.Contents, nil
}
