package evidence

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// Errors that Decode, Encode and Pack wrap.
var (
	// ErrDocument: the bytes are not an Evidence document in its one deterministic form.
	ErrDocument = errors.New("not an Evidence document")
	// ErrLimit: a part of the document is larger than allowed, or must not be as it is. The message names the field.
	ErrLimit = errors.New("evidence document out of limits")
)

var (
	encoder = must(cbor.EncOptions{
		Sort: cbor.SortBytewiseLexical, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		ShortestFloat: cbor.ShortestFloat16, NaNConvert: cbor.NaNConvert7e00, InfConvert: cbor.InfConvertFloat16,
		NilContainers: cbor.NilContainerAsEmpty,
	}.EncMode())
	decoder = must(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField, UTF8: cbor.UTF8RejectInvalid,
		// Nesting: document, quotes, quote, banks, bank, values. The largest map is that of the facts, the largest array that of
		// the EK certificates.
		MaxNestedLevels: 8, MaxMapPairs: MaxFacts, MaxArrayElements: MaxCerts,
	}.DecMode())
)

// must is for options, which are constant: a wrong one is seen by every test.
func must[M any](m M, err error) M {
	if err != nil {
		panic(err)
	}
	return m
}

// Decode reads a document. It refuses what Encode would not have written byte by byte, and what is outside of the limits of this
// package. EventLog and IMA may point into b, which must not be changed as long as they are used; the rest is the document's own.
// Errors wrap ErrDocument or ErrLimit.
func Decode(b []byte) (*Document, error) {
	if len(b) > MaxDocument {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrLimit, len(b), MaxDocument)
	}
	if len(b) < worthCutting {
		return decode(b, nil, nil)
	}
	return decode(cut(b))
}

// decode reads a document whose logs were cut out, or are in rest still.
func decode(rest, log, list []byte) (*Document, error) {
	var d Document
	if err := decoder.Unmarshal(rest, &d); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDocument, err)
	}
	same := comparer{rest: rest}
	if err := encoder.NewEncoder(&same).Encode(&d); err != nil || len(same.rest) > 0 {
		return nil, fmt.Errorf("%w: CBOR is not in its deterministic form (RFC 8949, 4.2)", ErrDocument)
	}
	if len(log) > 0 {
		d.EventLog = log
	}
	if len(list) > 0 {
		d.IMA = list
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	return &d, nil
}

// Encode writes the document in its one form. Errors wrap ErrLimit.
func (d *Document) Encode() ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	b, err := encoder.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode evidence: %w", err)
	}
	if len(b) > MaxDocument {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrLimit, len(b), MaxDocument)
	}
	return b, nil
}

// Encode is the method of Document, as the counterpart of Decode.
func Encode(d *Document) ([]byte, error) { return d.Encode() }

// comparer takes what is written to it off the bytes that are expected, so that no second document is built to compare with.
type comparer struct{ rest []byte }

var errDiffers = errors.New("differs")

func (c *comparer) Write(b []byte) (int, error) {
	if !bytes.HasPrefix(c.rest, b) {
		return 0, errDiffers
	}
	c.rest = c.rest[len(b):]
	return len(b), nil
}
