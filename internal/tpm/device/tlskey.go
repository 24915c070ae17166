package device

import (
	"crypto"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"touchstone.dev/touchstone/internal/tpm"
)

// TLSKey is an ECDSA P-256 key that signs inside the TPM: for TLS 1.3 and certificate requests. It is unrestricted, so it proves
// nothing about the platform by itself; [TPM.Certify] proves that it lives in the TPM of an attestation key.
type TLSKey struct {
	*Key
	tpm *TPM
}

// TLSKey returns the TLS key, the same at each call and after each boot.
func (t *TPM) TLSKey() (*TLSKey, error) {
	var key *Key
	err := t.do("make TLS key", func() (err error) {
		key, err = t.key(tlsECC)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &TLSKey{Key: key, tpm: t}, nil
}

// Public returns the *ecdsa.PublicKey, as crypto.Signer wants it. Area returns the TPMT_PUBLIC.
func (k *TLSKey) Public() crypto.PublicKey { return k.public.Key }

// Area returns the key's TPMT_PUBLIC.
func (k *TLSKey) Area() []byte { return k.public.Area() }

// Sign signs a SHA-256 digest in the TPM and returns an ASN.1 signature. The random source is the TPM's own. Other hashes are
// refused: the key is bound to SHA-256, as TLS 1.3 wants it for P-256.
func (k *TLSKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts == nil || opts.HashFunc() != crypto.SHA256 || len(digest) != crypto.SHA256.Size() {
		return nil, errors.New("TPM: sign: the TLS key signs SHA-256 digests only, use TLS 1.3")
	}
	var r, s []byte
	err := k.tpm.do("sign", func() error {
		return k.tpm.with(k.Key, func(handle tpm2.NamedHandle) error {
			rsp, err := tpm2.Sign{
				KeyHandle: tpm2.AuthHandle{Handle: handle.Handle, Name: handle.Name, Auth: tpm2.PasswordAuth(nil)},
				Digest:    tpm2.TPM2BDigest{Buffer: digest}, InScheme: k.scheme(),
				Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
			}.Execute(k.tpm.link)
			if err != nil {
				return err
			}
			sig, err := rsp.Signature.Signature.ECDSA()
			if err != nil {
				return err
			}
			r, s = sig.SignatureR.Buffer, sig.SignatureS.Buffer
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(r), new(big.Int).SetBytes(s)})
	if err != nil {
		return nil, fmt.Errorf("TPM: sign: %w", err)
	}
	return der, nil
}

// Certify has ak sign that key lives in the same TPM (TPM2_Certify). It returns a TPMS_ATTEST, to be read by tpm.ParseCertify,
// and a TPMT_SIGNATURE.
func (t *TPM) Certify(ak *Key, key *TLSKey, nonce []byte) (message, signature []byte, err error) {
	if key == nil {
		return nil, nil, errors.New("TPM: certify: the TLS key is missing")
	}
	return t.certify(ak, key.Key, nonce)
}

func (t *TPM) certify(ak, key *Key, nonce []byte) (message, signature []byte, err error) {
	if ak == nil || key == nil {
		return nil, nil, errors.New("TPM: certify: attestation key or key is missing")
	}
	err = t.do("certify "+key.template.name, func() error {
		return t.with(ak, func(akHandle tpm2.NamedHandle) error {
			return t.with(key, func(handle tpm2.NamedHandle) error {
				rsp, err := tpm2.Certify{
					ObjectHandle:   tpm2.AuthHandle{Handle: handle.Handle, Name: handle.Name, Auth: tpm2.PasswordAuth(nil)},
					SignHandle:     tpm2.AuthHandle{Handle: akHandle.Handle, Name: akHandle.Name, Auth: tpm2.PasswordAuth(nil)},
					QualifyingData: tpm2.TPM2BData{Buffer: nonce}, InScheme: ak.scheme(),
				}.Execute(t.link)
				if err != nil {
					return err
				}
				message, signature = rsp.CertifyInfo.Bytes(), tpm2.Marshal(rsp.Signature)
				_, err = tpm.ParseCertify(message)
				return err
			})
		})
	})
	return message, signature, err
}
