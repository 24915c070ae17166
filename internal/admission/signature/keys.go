// Package signature verifies signatures on container images by public keys that are known beforehand: no certificates, no transparency log, no network.
//
// It knows the two forms that cosign writes: "simple signing" payloads (containers/image's document, signed as it is), and Sigstore bundles with
// a DSSE envelope around an in-toto statement. Both are the bytes of strangers: what counts is read strictly, and only after the signature over it
// holds.
package signature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // SHA-384 and SHA-512 of larger curves
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Limits of what is read.
const (
	MaxKeys    = 16       // keys of one demand
	MaxPayload = 64 << 10 // bytes of a simple signing payload
	MaxBundle  = 1 << 20  // bytes of a bundle
	maxKey     = 16 << 10 // bytes of one PEM text
)

// Sizes of RSA keys in bits: shorter ones are weak, longer ones slow.
const (
	minRSA = 2048
	maxRSA = 8192
)

// ErrNoKey is returned when no key made the signature.
var ErrNoKey = errors.New("it is by none of the keys")

// Keys are the public keys of which one must have signed.
type Keys struct {
	list []key
}

type key struct {
	public      crypto.PublicKey
	fingerprint string
}

// ParseKeys reads public keys: one PEM block "PUBLIC KEY" (PKIX) each, of ECDSA on P-256, P-384 or P-521, RSA of 2048 to 8192 bits, or Ed25519. One
// that cannot be read is an error for all: whoever wrote it should know.
func ParseKeys(pems []string) (*Keys, error) {
	if len(pems) == 0 || len(pems) > MaxKeys {
		return nil, fmt.Errorf("%d keys, want 1 to %d", len(pems), MaxKeys)
	}
	k := &Keys{}
	for i, text := range pems {
		one, err := parseKey(text)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		k.list = append(k.list, one)
	}
	return k, nil
}

func parseKey(text string) (key, error) {
	if len(text) > maxKey {
		return key{}, fmt.Errorf("more than %d bytes", maxKey)
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "PUBLIC KEY" {
		return key{}, errors.New("want one PEM block PUBLIC KEY, as `cosign public-key` prints it")
	}
	if strings.TrimSpace(string(rest)) != "" {
		return key{}, errors.New("there is more behind the PEM block: one key an entry")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return key{}, fmt.Errorf("not a public key: %w", err)
	}
	switch p := public.(type) {
	case *ecdsa.PublicKey:
		if hashes(p.Curve) == nil {
			return key{}, fmt.Errorf("curve %s, want P-256, P-384 or P-521", p.Params().Name)
		}
	case *rsa.PublicKey:
		if n := p.N.BitLen(); n < minRSA || n > maxRSA {
			return key{}, fmt.Errorf("RSA of %d bits, want %d to %d", n, minRSA, maxRSA)
		}
	case ed25519.PublicKey:
	default:
		return key{}, fmt.Errorf("a key of type %T, want ECDSA, RSA or Ed25519", public)
	}
	sum := sha256.Sum256(block.Bytes)
	return key{public: public, fingerprint: hex.EncodeToString(sum[:])}, nil
}

// Len is the number of keys.
func (k *Keys) Len() int { return len(k.list) }

// signer returns the fingerprint (SHA-256 of the PKIX form, hexadecimal) of the key that signed message.
func (k *Keys) signer(message, sig []byte) (string, error) {
	for _, one := range k.list {
		if verify(one.public, message, sig) {
			return one.fingerprint, nil
		}
	}
	return "", ErrNoKey
}

// hashes of signatures by keys on the curve: the one of its size, and SHA-256, which cosign takes for every key of simple signing.
func hashes(c elliptic.Curve) []crypto.Hash {
	switch c {
	case elliptic.P256():
		return []crypto.Hash{crypto.SHA256}
	case elliptic.P384():
		return []crypto.Hash{crypto.SHA384, crypto.SHA256}
	case elliptic.P521():
		return []crypto.Hash{crypto.SHA512, crypto.SHA256}
	}
	return nil
}

func digest(h crypto.Hash, message []byte) []byte {
	d := h.New()
	d.Write(message)
	return d.Sum(nil)
}

func verify(public crypto.PublicKey, message, sig []byte) bool {
	switch p := public.(type) {
	case *ecdsa.PublicKey:
		return slices.ContainsFunc(hashes(p.Curve), func(h crypto.Hash) bool { return ecdsa.VerifyASN1(p, digest(h, message), sig) })
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(p, crypto.SHA256, digest(crypto.SHA256, message), sig) == nil
	case ed25519.PublicKey:
		// cosign 3 signs the hash of the message (Ed25519ph), older ones the message itself.
		hashed := &ed25519.Options{Hash: crypto.SHA512}
		return ed25519.Verify(p, message, sig) || ed25519.VerifyWithOptions(p, digest(crypto.SHA512, message), sig, hashed) == nil
	}
	return false
}
