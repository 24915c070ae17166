package device

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"touchstone.dev/touchstone/internal/tpm"
)

// ErrStateChanged says that PCRs have other values than when a decryption key was made: it is of no use any more, and what was encrypted
// to it is lost.
var ErrStateChanged = errors.New("the platform is in another state than the one that the key is bound to")

const decryptAttributes = tpm.AttrFixedTPM | tpm.AttrFixedParent | tpm.AttrSensitiveDataOrigin | tpm.AttrNoDA | tpm.AttrDecrypt

// DecryptionKey is an ECDH P-256 key that works inside the TPM, and only while the PCRs that it was made for have the same values: a
// crypto/ecdh.KeyExchanger.
type DecryptionKey struct {
	*Key
	tpm       *TPM
	selection tpm.Selection
	public    *ecdh.PublicKey
}

// DecryptionKey returns the decryption key for the state that the PCRs of a bank are in now: the same one at each call and after each
// boot, as long as they have the same values.
func (t *TPM) DecryptionKey(bank tpm.Alg, pcrs tpm.PCRSet) (*DecryptionKey, error) {
	k := &DecryptionKey{tpm: t, selection: tpm.Selection{Alg: bank, PCRs: pcrs}}
	err := t.do("make decryption key", func() error {
		values, err := t.readBank(k.selection)
		if err != nil {
			return err
		}
		policy, err := tpm.PCRPolicy(values, pcrs)
		if err != nil {
			return err
		}
		text := hex.EncodeToString(policy)
		k.Key, err = t.key(template{name: "decryption key " + text, nameAlg: tpm.AlgSHA256, attributes: decryptAttributes, policy: text, curve: 3,
			unique: []byte("touchstone decryption")})
		return err
	})
	if err != nil {
		return nil, err
	}
	public, ok := k.Key.public.Key.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("TPM: make decryption key: it is a %T", k.Key.public.Key)
	}
	k.public, err = public.ECDH()
	return k, err
}

// Area returns the key's TPMT_PUBLIC.
func (k *DecryptionKey) Area() []byte { return k.Key.public.Area() }

// PublicKey returns the public key.
func (k *DecryptionKey) PublicKey() *ecdh.PublicKey { return k.public }

// Curve returns P-256.
func (k *DecryptionKey) Curve() ecdh.Curve { return ecdh.P256() }

// ECDH performs the exchange inside the TPM (TPM2_ECDH_ZGen). Once the platform is in another state it fails with ErrStateChanged.
func (k *DecryptionKey) ECDH(peer *ecdh.PublicKey) ([]byte, error) {
	if peer == nil || peer.Curve() != ecdh.P256() {
		return nil, errors.New("TPM: exchange keys: the other key is not on P-256")
	}
	point := peer.Bytes() // uncompressed: 4, x, y
	session := tpm2.Policy(tpm2.TPMAlgSHA256, 16, func(link transport.TPM, session tpm2.TPMISHPolicy, _ tpm2.TPM2BNonce) error {
		_, err := tpm2.PolicyPCR{
			PolicySession: session, Pcrs: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{wireSelection(k.selection)}},
		}.Execute(link)
		return err
	})
	z := make([]byte, 32)
	err := k.tpm.do("exchange keys", func() error {
		return k.tpm.with(k.Key, func(handle tpm2.NamedHandle) error {
			rsp, err := tpm2.ECDHZGen{
				KeyHandle: tpm2.AuthHandle{Handle: handle.Handle, Name: handle.Name, Auth: session},
				InPoint: tpm2.New2B(tpm2.TPMSECCPoint{
					X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]},
				}),
			}.Execute(k.tpm.link)
			if errors.Is(err, tpm2.TPMRCPolicyFail) {
				return ErrStateChanged
			}
			if err != nil {
				return err
			}
			out, err := rsp.OutPoint.Contents()
			if err != nil {
				return err
			}
			if len(out.X.Buffer) > len(z) {
				return fmt.Errorf("the TPM gives a coordinate of %d bytes", len(out.X.Buffer))
			}
			copy(z[len(z)-len(out.X.Buffer):], out.X.Buffer) // some TPMs drop leading zeros
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return z, nil
}

// CertifyDecryption has ak sign that a decryption key lives in the same TPM, for tpm.VerifyDecryptionKey.
func (t *TPM) CertifyDecryption(ak *Key, key *DecryptionKey, nonce []byte) (message, signature []byte, err error) {
	if key == nil {
		return nil, nil, errors.New("TPM: certify: the decryption key is missing")
	}
	return t.certify(ak, key.Key, nonce)
}
