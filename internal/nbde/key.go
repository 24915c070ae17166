package nbde

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	_ "crypto/sha1" //nolint:gosec // thumbprints of clevis before version 15, which name a key and protect nothing
	_ "crypto/sha256"
	_ "crypto/sha512"

	"github.com/go-jose/go-jose/v4/json"
)

// Use is what a key is for, as its "alg" says.
type Use string

// The two uses.
const (
	Sign     Use = "ES512" // signs advertisements
	Exchange Use = "ECMR"  // recovers
)

// ErrKey is what a key that cannot be used wraps.
var ErrKey = errors.New("not a key of a Tang server")

const maxJWK = 16 << 10 // bytes of a private key as JSON

// thumbprints are the hashes under which tangd knows a key; the default one is in the middle.
var thumbprints = []crypto.Hash{crypto.SHA256, crypto.SHA1, crypto.SHA224, crypto.SHA384, crypto.SHA512}

// Key is a private key. It is immutable.
type Key struct {
	Use   Use
	Curve Curve
	// Thumbprint is the key's name: RFC 7638 with SHA-256, base64url.
	Thumbprint string
	names      []string // under every hash
	public     []byte   // uncompressed point
	scalar     []byte
	signer     *ecdsa.PrivateKey // of a key that signs
	hsm        HSM               // which has the private part, instead of scalar
	id         string            // in hsm
}

// NewKey makes a key that recovers, on a curve.
func NewKey(c Curve) (*Key, error) { return generate(Exchange, c) }

// NewSigner makes a key that signs advertisements.
func NewSigner() (*Key, error) { return generate(Sign, signCurve) }

func generate(use Use, c Curve) (*Key, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	k, err := ecdsa.GenerateKey(groups[c].curve(), rand.Reader)
	if err != nil {
		return nil, err
	}
	scalar, err := k.Bytes()
	if err != nil {
		return nil, err
	}
	public, err := k.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	return newKey(use, c, scalar, public)
}

// ParseKey reads a private key as tangd keeps it, a JSON Web Key. A public half that is not that of the private one is refused.
func ParseKey(b []byte) (*Key, error) { return parseKey(b, nil) }

// parseKey is ParseKey for one that may be in an HSM.
func parseKey(b []byte, h HSM) (*Key, error) {
	if len(b) > maxJWK {
		return nil, fmt.Errorf("%w: %d bytes, want at most %d", ErrKey, len(b), maxJWK)
	}
	var j jwk
	if err := json.Unmarshal(b, &j); err != nil {
		return nil, fmt.Errorf("%w: no JSON Web Key", ErrKey) // what the decoder says may quote the key
	}
	use := Use(j.Alg)
	if use != Sign && use != Exchange {
		return nil, fmt.Errorf("%w: alg %.20q, want %s or %s", ErrKey, j.Alg, Sign, Exchange)
	}
	ops := map[Use]string{Sign: "sign", Exchange: "deriveKey"}
	if len(j.KeyOps) > 0 && !slices.Contains(j.KeyOps, ops[use]) {
		return nil, fmt.Errorf("%w: key_ops of an %s key are %.60q, want %q among them", ErrKey, use, j.KeyOps, ops[use])
	}
	public, err := j.point()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	c := Curve(j.Crv)
	if use == Sign && c != signCurve {
		return nil, fmt.Errorf("%w: crv %s of an %s key, want %s", ErrKey, c, use, signCurve)
	}
	if j.HSM != "" && use == Exchange && j.D == "" {
		if h == nil {
			return nil, fmt.Errorf("the key is in an HSM, as %.60q: set disks.hsm", j.HSM)
		}
		return hsmKey(h, j.HSM, c, public)
	}
	scalar, err := coordinate(j.D, groups[c].size())
	if err != nil {
		return nil, fmt.Errorf("%w: no private part: %w", ErrKey, err)
	}
	return newKey(use, c, scalar, public)
}

// newKey completes a key, and checks that its halves belong together.
func newKey(use Use, c Curve, scalar, public []byte) (*Key, error) {
	p, err := groups[c].public(scalar)
	if err != nil || !bytes.Equal(p, public) {
		return nil, fmt.Errorf("%w: its public part is not that of its private part", ErrKey)
	}
	k := &Key{Use: use, Curve: c, public: public, scalar: scalar}
	if use == Sign {
		if k.signer, err = ecdsa.ParseRawPrivateKey(groups[c].curve(), scalar); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrKey, err)
		}
	}
	k.name()
	return k, nil
}

// name sets the thumbprints.
func (k *Key) name() {
	for _, h := range thumbprints {
		k.names = append(k.names, thumbprint(h, k.Curve, k.public))
	}
	k.Thumbprint = k.names[0]
}

// thumbprint is RFC 7638: the hash of the required members, in order, without white space.
func thumbprint(h crypto.Hash, c Curve, public []byte) string {
	sum := h.New()
	x, y := encoded(public)
	fmt.Fprintf(sum, `{"crv":"%s","kty":"EC","x":"%s","y":"%s"}`, c, x, y)
	return base64.RawURLEncoding.EncodeToString(sum.Sum(nil))
}

// encoded are the coordinates of a point as a JSON Web Key has them.
func encoded(point []byte) (x, y string) {
	half := 1 + len(point)/2
	return base64.RawURLEncoding.EncodeToString(point[1:half]), base64.RawURLEncoding.EncodeToString(point[half:])
}

// Marshal returns the key as a private JSON Web Key, as tangd keeps it. It is a secret. Of a key in an HSM it has the ID there.
func (k *Key) Marshal() ([]byte, error) {
	j := k.jwk()
	if k.hsm != nil {
		j.HSM = k.id
		return json.Marshal(j)
	}
	j.D = base64.RawURLEncoding.EncodeToString(k.scalar)
	if k.Use == Sign {
		j.KeyOps = []string{"sign", "verify"}
	}
	return json.Marshal(j)
}

// jwk is the public half.
func (k *Key) jwk() jwk {
	j := jwk{Alg: string(k.Use), Crv: string(k.Curve), KeyOps: []string{"verify"}, Kty: "EC"}
	if k.Use == Exchange {
		j.KeyOps[0] = "deriveKey"
	}
	j.X, j.Y = encoded(k.public)
	return j
}

// Recover multiplies a point of a client with the private key. What is no point of the curve, or the point at infinity, is refused.
func (k *Key) Recover(point []byte) ([]byte, error) {
	if k.Use != Exchange {
		return nil, errors.New("recover: this key signs")
	}
	if k.hsm != nil {
		return k.recover(point)
	}
	return groups[k.Curve].multiply(point, k.scalar)
}
