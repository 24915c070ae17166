package imagekey

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
)

// Provider is the name of the key provider: it is the last part of the annotation's name, and stands in the configuration of runtimes.
const Provider = "touchstone"

// Names of annotations of an encrypted layer (ocicrypt).
const (
	AnnotationPrefix = "org.opencontainers.image.enc."
	KeysPrefix       = AnnotationPrefix + "keys.provider."
	KeysAnnotation   = KeysPrefix + Provider
	OptionsName      = AnnotationPrefix + "pubopts"
)

// Limits, in bytes.
const (
	MaxAnnotation = 16 << 10 // of one annotation, decoded from base64
	MaxOptions    = 4 << 10  // of the private options of a layer
)

const version = 1

// Failures. A message tells nothing of why decryption failed.
var (
	ErrAnnotation = errors.New("the annotation of the encrypted layer cannot be read")
	ErrDecrypt    = errors.New("the annotation of the encrypted layer does not open with its key: it was changed, or belongs to another key or layer")
)

// Annotation is what stands in the annotation of an encrypted layer.
type Annotation struct {
	Version int    `json:"v"`
	Key     string `json:"key"` // ID
	// Layer is the digest of the encrypted layer, Plain the digest of the layer unpacked, as the image's configuration names it. Both are
	// empty where the client that encrypted did not say.
	Layer string `json:"layer,omitempty"`
	Plain string `json:"plain,omitempty"`
	Nonce []byte `json:"nonce"`
	Data  []byte `json:"data"` // private options of ocicrypt, sealed by AES-256-GCM
}

var digestForm = regexp.MustCompile(`^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$`)

// Seal makes the annotation of a layer: options sealed under the key of that ID.
func Seal(key []byte, a Annotation, options []byte) ([]byte, error) {
	a.Version = version
	if err := a.check(); err != nil {
		return nil, err
	}
	if len(options) == 0 || len(options) > MaxOptions {
		return nil, fmt.Errorf("%w: %d bytes of options, want 1 to %d", ErrAnnotation, len(options), MaxOptions)
	}
	aead, err := gcm(key)
	if err != nil {
		return nil, err
	}
	a.Nonce = random(aead.NonceSize())
	a.Data = aead.Seal(nil, a.Nonce, options, a.bound())
	return json.Marshal(a)
}

// Parse reads an annotation. It proves nothing: Open does.
func Parse(b []byte) (*Annotation, error) {
	if len(b) > MaxAnnotation {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are taken", ErrAnnotation, len(b), MaxAnnotation)
	}
	a := &Annotation{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(a); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnnotation, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: there is more after it", ErrAnnotation)
	}
	if err := a.check(); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *Annotation) check() error {
	if a.Version != version {
		return fmt.Errorf("%w: version %d, this program knows %d", ErrAnnotation, a.Version, version)
	}
	if id, err := ParseID(a.Key); err != nil || id != a.Key {
		return fmt.Errorf("%w: key %.60q: %w", ErrAnnotation, a.Key, ErrID)
	}
	for _, d := range []string{a.Layer, a.Plain} {
		if d != "" && !digestForm.MatchString(d) {
			return fmt.Errorf("%w: %.80q is no digest", ErrAnnotation, d)
		}
	}
	return nil
}

// Open returns the private options, after a check that neither they nor anything else in the annotation was changed.
func (a *Annotation) Open(key []byte) ([]byte, error) {
	aead, err := gcm(key)
	if err != nil {
		return nil, err
	}
	if len(a.Nonce) != aead.NonceSize() {
		return nil, ErrDecrypt
	}
	options, err := aead.Open(nil, a.Nonce, a.Data, a.bound())
	if err != nil {
		return nil, ErrDecrypt
	}
	return options, nil
}

// bound is the additional data of the seal: everything else in the annotation. No part can hold a NUL.
func (a *Annotation) bound() []byte {
	return fmt.Appendf(nil, "touchstone image layer %d\x00%s\x00%s\x00%s", a.Version, a.Key, a.Layer, a.Plain)
}

func gcm(key []byte) (cipher.AEAD, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("image key of %d bytes, want %d", len(key), KeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
