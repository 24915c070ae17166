package kmod

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Limits on modules.
const (
	MaxModule    = 256 << 20 // bytes of a module
	MaxSignature = 64 << 10  // bytes of its CMS signature
)

// Errors of module signatures.
var (
	ErrUnsigned     = errors.New("module is not signed")
	ErrMalformed    = errors.New("malformed module signature")
	ErrUnknownKey   = errors.New("module is signed by a key that is not known")
	ErrBadSignature = errors.New("module signature does not verify: the module was changed or the signature belongs to another")
)

const (
	magic       = "~Module signature appended~\n"
	trailerSize = 12
	idPKCS7     = 2 // PKEY_ID_PKCS7, the only kind since Linux 4.3
)

// Parse splits a module into its signature and its content (what is signed). It returns ErrUnsigned with the whole module as content
// when nothing is appended, and ErrMalformed when what is appended cannot be read.
func Parse(b []byte) (sig *Signature, content []byte, err error) {
	if len(b) > MaxModule {
		return nil, nil, fmt.Errorf("%w: %d bytes, at most %d are read", ErrMalformed, len(b), MaxModule)
	}
	rest, ok := bytes.CutSuffix(b, []byte(magic))
	if !ok {
		return nil, b, ErrUnsigned
	}
	if len(rest) < trailerSize {
		return nil, nil, fmt.Errorf("%w: no trailer", ErrMalformed)
	}
	body, trailer := rest[:len(rest)-trailerSize], rest[len(rest)-trailerSize:]
	// algorithm, hash, identifier kind, signer and key id lengths and padding: all zero but the kind.
	if want := []byte{0, 0, idPKCS7, 0, 0, 0, 0, 0}; !bytes.Equal(trailer[:8], want) {
		return nil, nil, fmt.Errorf("%w: trailer % x, want % x", ErrMalformed, trailer[:8], want)
	}
	size := binary.BigEndian.Uint32(trailer[8:])
	if size > MaxSignature || uint64(size) > uint64(len(body)) {
		return nil, nil, fmt.Errorf("%w: signature of %d bytes after %d", ErrMalformed, size, len(body))
	}
	cut := len(body) - int(size)
	if sig, err = parseCMS(body[cut:]); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return sig, body[:cut], nil
}
