package tpm

import (
	"errors"
	"fmt"
)

// Failures of attestation structures beside those that every structure can have.
var (
	// ErrMagic says that the structure does not begin with TPM_GENERATED_VALUE. A restricted key signs foreign data only if it
	// does not begin so: what fails here was not made by a TPM, even under a perfect signature.
	ErrMagic = errors.New("not made by a TPM: TPM_GENERATED magic is missing")
	// ErrNotQuote says that the TPM signed something else than a quote.
	ErrNotQuote = errors.New("not a quote")
	// ErrNotCertify says that the TPM signed something else than the certification of an object.
	ErrNotCertify = errors.New("not a certification")
)

// Constants of part 2: 6.2 (TPM_GENERATED) and 6.9 (TPM_ST).
const (
	generatedMagic = 0xff544347
	tagCertify     = 0x8017
	tagQuote       = 0x8018
)

// Selection names PCRs of one bank (TPMS_PCR_SELECTION).
type Selection struct {
	Alg  Alg
	PCRs PCRSet
}

// Quote is what TPM2_Quote signed: a TPMS_ATTEST of type TPM_ST_ATTEST_QUOTE (part 2, 10.12). Byte fields alias the input.
type Quote struct {
	QualifiedSigner []byte // Qualified Name of the signing key
	ExtraData       []byte // the caller's nonce
	Clock           uint64 // milliseconds that the TPM has been powered, over its life
	ResetCount      uint32 // TPM resets (boots); obfuscated unless the key is in the endorsement or platform hierarchy
	RestartCount    uint32 // restarts and resumes since the last reset
	Safe            bool   // no greater Clock value was ever reported
	FirmwareVersion uint64 // vendor specific; obfuscated like ResetCount
	Selections      []Selection
	PCRDigest       []byte // hash of the selected values, by the hash of the signature scheme
}

// Certification is what TPM2_Certify signed: a TPMS_ATTEST of type TPM_ST_ATTEST_CERTIFY. It proves that an object with this
// Name is loaded in the TPM of the signing key. Byte fields alias the input; the clock fields are those of Quote.
type Certification struct {
	QualifiedSigner []byte
	ExtraData       []byte
	Clock           uint64
	ResetCount      uint32
	RestartCount    uint32
	Safe            bool
	FirmwareVersion uint64
	Name            []byte // Name of the certified object
	QualifiedName   []byte // its Qualified Name: hash over all its parents
}

// ParseQuote decodes a TPMS_ATTEST of a quote. Its errors wrap ErrMagic, ErrNotQuote, ErrTruncated, ErrTrailing or ErrMalformed.
// Decoding proves nothing: verify the signature over the same bytes.
func ParseQuote(b []byte) (*Quote, error) {
	w := wire{b: b}
	q := new(Quote)
	w.attestHeader(tagQuote, ErrNotQuote, q)
	q.Selections = w.selections()
	q.PCRDigest = w.sized(maxDigest)
	if err := w.end(); err != nil {
		return nil, fmt.Errorf("read quote: %w", err)
	}
	return q, nil
}

// ParseCertify decodes a TPMS_ATTEST of a certified object. Its errors are those of ParseQuote, with ErrNotCertify.
func ParseCertify(b []byte) (*Certification, error) {
	w := wire{b: b}
	var q Quote
	w.attestHeader(tagCertify, ErrNotCertify, &q)
	c := &Certification{
		QualifiedSigner: q.QualifiedSigner, ExtraData: q.ExtraData, Clock: q.Clock, ResetCount: q.ResetCount,
		RestartCount: q.RestartCount, Safe: q.Safe, FirmwareVersion: q.FirmwareVersion,
		Name: w.sized(maxName), QualifiedName: w.sized(maxName),
	}
	if err := w.end(); err != nil {
		return nil, fmt.Errorf("read certification: %w", err)
	}
	return c, nil
}

// attestHeader reads the fields that all attestation structures share into q.
func (w *wire) attestHeader(tag uint16, wrongTag error, q *Quote) {
	if m := w.u32(); w.err == nil && m != generatedMagic {
		w.fail(fmt.Errorf("%w: got %#08x, want %#08x", ErrMagic, m, uint32(generatedMagic)))
	}
	if t := w.u16(); w.err == nil && t != tag {
		w.fail(fmt.Errorf("%w: type is %#04x, want %#04x", wrongTag, t, tag))
	}
	q.QualifiedSigner = w.sized(maxName)
	q.ExtraData = w.sized(maxData)
	q.Clock = w.u64()
	q.ResetCount = w.u32()
	q.RestartCount = w.u32()
	safe := w.u8()
	if safe > 1 {
		w.fail(fmt.Errorf("%w: the safe flag is %d, want 0 or 1", ErrMalformed, safe))
	}
	q.Safe = safe == 1
	q.FirmwareVersion = w.u64()
}

// selections reads a TPML_PCR_SELECTION.
func (w *wire) selections() []Selection {
	n := w.u32()
	if n > maxSelections {
		w.fail(fmt.Errorf("%w: %d PCR selections, at most %d are possible", ErrMalformed, n, maxSelections))
	}
	if w.err != nil || n == 0 {
		return nil
	}
	out := make([]Selection, 0, n)
	for range n {
		s := Selection{Alg: w.alg()}
		size := int(w.u8())
		if size > maxSelect {
			w.fail(fmt.Errorf("%w: PCR bit map of %d bytes, at most %d are possible", ErrMalformed, size, maxSelect))
		}
		for i, v := range w.take(size) {
			s.PCRs |= PCRSet(v) << (8 * i)
		}
		if s.PCRs>>NumPCRs != 0 {
			w.fail(fmt.Errorf("%w: selection names a PCR of 24 or more", ErrMalformed))
		}
		if w.err != nil {
			return nil
		}
		out = append(out, s)
	}
	return out
}

// PCRDigest computes the digest that a quote over selections must carry: hash over the selected values, in the order of the
// selections and by ascending index in each. hash is that of the signature scheme, not that of a bank. A selected PCR whose
// value is missing or has the wrong size is an error that names it.
func PCRDigest(hash Alg, selections []Selection, banks map[Alg]*Bank) ([]byte, error) {
	h := hash.Hash()
	if h == 0 {
		return nil, fmt.Errorf("PCR digest: %w: %v is no known hash", ErrUnsupported, hash)
	}
	d := h.New()
	for _, s := range selections {
		if s.PCRs == 0 {
			continue
		}
		bank := banks[s.Alg]
		if bank == nil {
			return nil, fmt.Errorf("PCR digest: no values of bank %v, which the quote selects (PCR %v)", s.Alg, s.PCRs)
		}
		for i, v := range bank.Values {
			if !s.PCRs.Has(i) {
				continue
			}
			if len(v) == 0 {
				return nil, fmt.Errorf("PCR digest: the value of PCR %d in bank %v is missing", i, s.Alg)
			}
			if size := s.Alg.Size(); len(v) != size {
				return nil, fmt.Errorf("PCR digest: the value of PCR %d in bank %v has %d bytes, want %d", i, s.Alg, len(v), size)
			}
			d.Write(v)
		}
	}
	return d.Sum(nil), nil
}
