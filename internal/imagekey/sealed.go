package imagekey

import (
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"touchstone.dev/touchstone/internal/tpm"
)

// ErrSealed says that a key that AIAS sent does not open: it is for another TPM, another node, another key ID or another state of the
// platform, or it was changed.
var ErrSealed = errors.New("the key that AIAS sent does not open in this TPM")

// BootPCRs are the PCRs that the TPM's key is bound to: firmware, Secure Boot, boot loader, kernel, command line and initrd, and the shim's
// keys. They do not move once the system runs. PCR 10 (what runs) does; AIAS judges it at each release.
func BootPCRs() tpm.PCRSet { return tpm.PCRs(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14) }

// Context is what the attestation key certifies a TPM's decryption key over: it is for image keys, and of this node.
func Context(node string) []byte {
	sum := sha256.Sum256([]byte("touchstone image key 1\x00" + node))
	return sum[:]
}

// Names of the HPKE suite: DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.
func suite() (hpke.KDF, hpke.AEAD) { return hpke.HKDFSHA256(), hpke.AES256GCM() }

// info binds a sealed key to the node and to the ID. Neither can hold a NUL.
func info(node, id string) []byte { return []byte("touchstone image key 1\x00" + node + "\x00" + id) }

// SealTo encrypts the key of an ID to the key of a node's TPM.
func SealTo(to *ecdh.PublicKey, node, id string, key []byte) ([]byte, error) {
	pk, err := hpke.NewDHKEMPublicKey(to)
	if err != nil {
		return nil, fmt.Errorf("seal an image key: %w", err)
	}
	kdf, aead := suite()
	return hpke.Seal(pk, kdf, aead, info(node, id), key)
}

// OpenSealed decrypts what SealTo made, by the TPM's key. Errors of the TPM come back as they are.
func OpenSealed(by ecdh.KeyExchanger, node, id string, sealed []byte) ([]byte, error) {
	if len(sealed) > 1024 {
		return nil, ErrSealed
	}
	failed := &failing{KeyExchanger: by}
	sk, err := hpke.NewDHKEMPrivateKey(failed)
	if err != nil {
		return nil, fmt.Errorf("open an image key: %w", err)
	}
	kdf, aead := suite()
	key, err := hpke.Open(sk, kdf, aead, info(node, id), sealed)
	switch {
	case failed.err != nil:
		return nil, failed.err
	case err != nil || len(key) != KeySize:
		return nil, ErrSealed
	}
	return key, nil
}

// failing remembers why an exchange failed.
type failing struct {
	ecdh.KeyExchanger
	err error
}

// ECDH does the exchange.
func (f *failing) ECDH(peer *ecdh.PublicKey) ([]byte, error) {
	z, err := f.KeyExchanger.ECDH(peer)
	f.err = err
	return z, err
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the program instead
	return b
}

// leastPCRs must be among those that a node's quotes cover: without them nothing would bind the key to how the machine booted.
var leastPCRs = tpm.PCRs(0, 1, 2, 3, 4, 5, 6, 7)

// BoundPCRs returns the PCRs that a TPM's key is bound to, when quoted are those that AIAS asks to quote.
func BoundPCRs(quoted tpm.PCRSet) (tpm.PCRSet, error) {
	if quoted&leastPCRs != leastPCRs {
		return 0, fmt.Errorf("the appraisal policy does not quote PCR %v, which image keys are bound to: add them to attestation.pcrs", leastPCRs&^quoted)
	}
	return BootPCRs() & quoted, nil
}

// BootPolicy is the policy that the TPM's key must have: that of the boot in which PCRs had the values that were quoted.
func BootPolicy(values *tpm.Bank, quoted tpm.PCRSet) ([]byte, error) {
	pcrs, err := BoundPCRs(quoted)
	if err != nil {
		return nil, err
	}
	return tpm.PCRPolicy(values, pcrs)
}
