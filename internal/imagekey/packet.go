package imagekey

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// CoCoProvider is the name of the key provider in images of Confidential Containers.
const CoCoProvider = "attestation-agent"

// Packet is an annotation as the tools of Confidential Containers write it.
type Packet struct {
	KeyID   string `json:"kid"` // "kbs:///repository/type/tag"
	Wrapped []byte `json:"-"`
	IV      []byte `json:"-"`
	Kind    string `json:"wrap_type"`
}

// Kinds of wrapping in a Packet. A256CTR does not authenticate: what was changed comes out as other bytes, which ocicrypt's MAC over the
// layer then refuses.
const (
	wrapGCM = "A256GCM"
	wrapCTR = "A256CTR"
)

// ParsePacket reads an annotation of CoCo. Key ID is what ParseID makes of it.
func ParsePacket(b []byte) (*Packet, error) {
	if len(b) > MaxAnnotation {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are taken", ErrAnnotation, len(b), MaxAnnotation)
	}
	var raw struct {
		Packet
		Wrapped string `json:"wrapped_data"`
		IV      string `json:"iv"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnnotation, err)
	}
	p := raw.Packet
	var err error
	if p.KeyID, err = ParseID(p.KeyID); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnnotation, err)
	}
	if p.Kind != wrapGCM && p.Kind != wrapCTR {
		return nil, fmt.Errorf("%w: wrap_type %.20q, want %s or %s", ErrAnnotation, p.Kind, wrapGCM, wrapCTR)
	}
	if p.Wrapped, err = lenientBase64(raw.Wrapped); err != nil {
		return nil, fmt.Errorf("%w: wrapped_data: %w", ErrAnnotation, err)
	}
	if p.IV, err = lenientBase64(raw.IV); err != nil {
		return nil, fmt.Errorf("%w: iv: %w", ErrAnnotation, err)
	}
	return &p, nil
}

// lenientBase64 reads the standard alphabet with or without padding, as several versions of CoCo's tools wrote it.
func lenientBase64(s string) ([]byte, error) {
	if b, err := base64.StdEncoding.DecodeString(s); err == nil {
		return b, nil
	}
	return base64.RawStdEncoding.DecodeString(s)
}

// Open returns the private options of the layer.
func (p *Packet) Open(key []byte) ([]byte, error) {
	aead, err := gcm(key)
	if err != nil {
		return nil, err
	}
	if len(p.Wrapped) > MaxOptions+aead.Overhead() {
		return nil, ErrDecrypt
	}
	if p.Kind == wrapCTR {
		block, err := aes.NewCipher(key)
		if err != nil || len(p.IV) != aes.BlockSize {
			return nil, ErrDecrypt
		}
		out := make([]byte, len(p.Wrapped))
		cipher.NewCTR(block, p.IV).XORKeyStream(out, p.Wrapped)
		if !json.Valid(out) {
			return nil, ErrDecrypt
		}
		return out, nil
	}
	if len(p.IV) != aead.NonceSize() {
		return nil, ErrDecrypt
	}
	out, err := aead.Open(nil, p.IV, p.Wrapped, nil)
	if err != nil {
		return nil, ErrDecrypt
	}
	return out, nil
}

// Opener is an annotation that a key opens.
type Opener interface {
	// Open returns the private options of the layer.
	Open(key []byte) ([]byte, error)
}

// Read reads an annotation of either form, and tells which key it needs and the digest of the layer unpacked, "" when it is not said.
func Read(b []byte) (o Opener, key, plain string, err error) {
	var form struct {
		Kid *string `json:"kid"`
	}
	if len(b) <= MaxAnnotation && json.Unmarshal(b, &form) == nil && form.Kid != nil {
		p, err := ParsePacket(b)
		if err != nil {
			return nil, "", "", err
		}
		return p, p.KeyID, "", nil
	}
	a, err := Parse(b)
	if err != nil {
		return nil, "", "", err
	}
	return a, a.Key, a.Plain, nil
}
