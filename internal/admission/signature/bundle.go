package signature

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// What a Sigstore bundle is marked with: as an artifact that refers to the image, and as the layer of that artifact, with a version behind it.
const bundleType = "application/vnd.dev.sigstore.bundle"

// What the envelope in the bundle must hold. A bundle may as well be an attestation on the image (what it was built from, a scan): made with the same key,
// it does not say that the image is approved.
const (
	statementType = "application/vnd.in-toto+json"
	// Predicate is the type of a statement that is a signature.
	Predicate = "https://sigstore.dev/cosign/sign/v1"
)

var statements = []string{"https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"}

// maxSubjects bounds the images that one statement names.
const maxSubjects = 64

// IsBundle tells whether a media type is that of a bundle.
func IsBundle(mediaType string) bool {
	return strings.HasPrefix(mediaType, bundleType+".v") && strings.HasSuffix(mediaType, "+json") ||
		strings.HasPrefix(mediaType, bundleType+"+json;version=")
}

// Bundle verifies a Sigstore bundle that was made with a key, for the image with the digest ("sha256:..."), and returns the fingerprint of the
// key that signed. What else the bundle has (certificates, log entries, time stamps) does not count.
func (k *Keys) Bundle(doc []byte, digest string) (string, error) {
	if len(doc) > MaxBundle {
		return "", fmt.Errorf("it has more than %d bytes", MaxBundle)
	}
	kind, payload, sig, err := envelope(doc)
	if err != nil {
		return "", err
	}
	signer, err := k.signer(preAuthentication(kind, payload), sig)
	if err != nil {
		return "", err
	}
	if kind != statementType {
		return "", fmt.Errorf("its payload is %s, want %s", shown(kind), statementType)
	}
	if err := states(payload, digest); err != nil {
		return "", fmt.Errorf("its statement: %w", err)
	}
	return signer, nil
}

// envelope returns the DSSE envelope of a bundle.
func envelope(doc []byte) (kind string, payload, sig []byte, err error) {
	o, err := object(doc)
	if err != nil {
		return "", nil, nil, err
	}
	if media, err := text(o["mediaType"]); err != nil || !IsBundle(media) {
		return "", nil, nil, errors.New("it does not call itself a Sigstore bundle")
	}
	e, err := object(o["dsseEnvelope"])
	if err != nil {
		return "", nil, nil, errors.New("it has no DSSE envelope")
	}
	if kind, err = text(e["payloadType"]); err != nil {
		return "", nil, nil, fmt.Errorf("payloadType: %w", err)
	}
	encoded, err := text(e["payload"])
	if err != nil {
		return "", nil, nil, fmt.Errorf("payload: %w", err)
	}
	if payload, err = decodeBase64(encoded, MaxBundle); err != nil {
		return "", nil, nil, fmt.Errorf("payload: %w", err)
	}
	var list []json.RawMessage
	if err := json.Unmarshal(e["signatures"], &list); err != nil || len(list) != 1 {
		return "", nil, nil, errors.New("want one signature in the envelope")
	}
	one, err := object(list[0])
	if err != nil {
		return "", nil, nil, fmt.Errorf("signature: %w", err)
	}
	if encoded, err = text(one["sig"]); err != nil {
		return "", nil, nil, fmt.Errorf("signature: %w", err)
	}
	if sig, err = decodeBase64(encoded, maxSignature); err != nil {
		return "", nil, nil, fmt.Errorf("signature: %w", err)
	}
	return kind, payload, sig, nil
}

// preAuthentication is what a DSSE signature is made over (PAE of the DSSE protocol, version 1).
func preAuthentication(kind string, payload []byte) []byte {
	b := []byte("DSSEv1 " + strconv.Itoa(len(kind)) + " " + kind + " " + strconv.Itoa(len(payload)) + " ")
	return append(b, payload...)
}

// states returns nil when an in-toto statement says that the image with the digest is signed.
func states(payload []byte, digest string) error {
	o, err := object(payload)
	if err != nil {
		return err
	}
	if kind, err := text(o["_type"]); err != nil || !slices.Contains(statements, kind) {
		return errors.New("_type is not that of an in-toto statement")
	}
	predicate, err := text(o["predicateType"])
	if err != nil || predicate != Predicate {
		return fmt.Errorf("it is an attestation (%s), not a signature", shown(predicate))
	}
	var subjects []json.RawMessage
	if err := json.Unmarshal(o["subject"], &subjects); err != nil || len(subjects) == 0 || len(subjects) > maxSubjects {
		return fmt.Errorf("want 1 to %d subjects", maxSubjects)
	}
	for i, raw := range subjects {
		subject, err := object(raw)
		if err != nil {
			return fmt.Errorf("subject %d: %w", i+1, err)
		}
		digests, err := object(subject["digest"])
		if err != nil {
			return fmt.Errorf("subject %d: digest: %w", i+1, err)
		}
		if sha, err := text(digests["sha256"]); err == nil && "sha256:"+sha == digest {
			return nil
		}
	}
	return errors.New("it signs another image")
}
