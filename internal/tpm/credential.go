package tpm

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// ErrCredential says that no credential can be made from what was given.
var ErrCredential = errors.New("cannot make a credential")

// MakeCredential encrypts secret so that only the TPM with the endorsement key ek gives it back, and only while it holds an
// object with the Name akName (TPM2_MakeCredential, part 1, 24). It needs no TPM. It returns a TPM2B_ID_OBJECT and a
// TPM2B_ENCRYPTED_SECRET, each with its size in front, as TPM2_ActivateCredential takes them.
//
// secret has at most as many bytes as the hash of ek's Name. akName must come from [Public.Name], not from the host.
func MakeCredential(ek *Public, akName, secret []byte) (blob, encrypted []byte, err error) {
	if ek == nil {
		return nil, nil, fmt.Errorf("%w: no endorsement key", ErrCredential)
	}
	if err := ek.CheckEndorsementKey(); err != nil {
		return nil, nil, fmt.Errorf("%w: the endorsement key is none: %w", ErrCredential, err)
	}
	if err := checkName(akName); err != nil {
		return nil, nil, fmt.Errorf("%w: Name of the attestation key: %w", ErrCredential, err)
	}
	if n := ek.NameAlg.Size(); len(secret) == 0 || len(secret) > n {
		return nil, nil, fmt.Errorf("%w: secret of %d bytes, want 1 to %d", ErrCredential, len(secret), n)
	}
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](ek.Area())
	if err != nil {
		return nil, nil, fmt.Errorf("%w: endorsement key: %w", ErrCredential, err)
	}
	key, err := tpm2.ImportEncapsulationKey(area)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: endorsement key: %w", ErrCredential, err)
	}
	id, enc, err := tpm2.CreateCredential(rand.Reader, key, akName, secret)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrCredential, err)
	}
	return sizePrefixed(id), sizePrefixed(enc), nil
}

// checkName checks the form of an object's Name: a known hash algorithm and a digest of its size.
func checkName(name []byte) error {
	if len(name) < 2 {
		return ErrTruncated
	}
	if alg := Alg(binary.BigEndian.Uint16(name)); alg.Size() == 0 || len(name) != 2+alg.Size() {
		return fmt.Errorf("%w: %d bytes with algorithm %v", ErrMalformed, len(name), alg)
	}
	return nil
}

func sizePrefixed(b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(b)), uint16(len(b))), b...)
}
