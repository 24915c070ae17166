package signature

import (
	"encoding/base64"
	"errors"
	"fmt"
)

// SimpleType is the media type of a layer that is a simple signing payload.
const SimpleType = "application/vnd.dev.cosign.simplesigning.v1+json"

// SimpleAnnotation is the annotation of such a layer that holds the signature, in base64.
const SimpleAnnotation = "dev.cosignproject.cosign/signature"

// simpleKind is what critical.type says.
const simpleKind = "cosign container image signature"

// maxSignature in bytes: RSA of 8192 bits has 1024.
const maxSignature = 2 << 10

// Simple verifies a simple signing payload for the image with the digest ("sha256:..."), and returns the fingerprint of the key that signed. The
// repository that the payload names (critical.identity.docker-reference) does not count, as it does not for cosign: images are mirrored, and what is
// signed is the content.
func (k *Keys) Simple(payload []byte, signature, digest string) (string, error) {
	if len(payload) > MaxPayload {
		return "", fmt.Errorf("its payload has more than %d bytes", MaxPayload)
	}
	sig, err := decodeBase64(signature, maxSignature)
	if err != nil {
		return "", fmt.Errorf("its signature: %w", err)
	}
	signer, err := k.signer(payload, sig)
	if err != nil {
		return "", err
	}
	signed, err := simpleDigest(payload)
	if err != nil {
		return "", fmt.Errorf("its payload: %w", err)
	}
	if signed != digest {
		return "", fmt.Errorf("it signs another image (%s)", shown(signed))
	}
	return signer, nil
}

// simpleDigest returns the digest that a payload signs.
func simpleDigest(payload []byte) (string, error) {
	o, err := object(payload)
	if err != nil {
		return "", err
	}
	delete(o, "optional") // what the signer noted; nothing that counts
	if len(o) != 1 || o["critical"] == nil {
		return "", errors.New("want critical, and optional, and nothing else")
	}
	critical, err := only(o["critical"], "identity", "image", "type")
	if err != nil {
		return "", fmt.Errorf("critical: %w", err)
	}
	if kind, err := text(critical["type"]); err != nil || kind != simpleKind {
		return "", fmt.Errorf("critical.type is not %q", simpleKind)
	}
	identity, err := only(critical["identity"], "docker-reference")
	if err != nil {
		return "", fmt.Errorf("critical.identity: %w", err)
	}
	if _, err := text(identity["docker-reference"]); err != nil {
		return "", fmt.Errorf("critical.identity.docker-reference: %w", err)
	}
	image, err := only(critical["image"], "docker-manifest-digest")
	if err != nil {
		return "", fmt.Errorf("critical.image: %w", err)
	}
	d, err := text(image["docker-manifest-digest"])
	if err != nil {
		return "", fmt.Errorf("critical.image.docker-manifest-digest: %w", err)
	}
	return d, nil
}

func decodeBase64(s string, limit int) ([]byte, error) {
	if len(s) > base64.StdEncoding.EncodedLen(limit) {
		return nil, fmt.Errorf("more than %d bytes", limit)
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) == 0 {
		return nil, errors.New("not base64")
	}
	return b, nil
}

// shown bounds what a message repeats of a payload.
func shown(s string) string {
	const most = 80
	if len(s) > most {
		return fmt.Sprintf("%.*q...", most, s)
	}
	return fmt.Sprintf("%q", s)
}
