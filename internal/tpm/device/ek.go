package device

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"touchstone.dev/touchstone/internal/tpm"
)

// The NV indices that hold the certificates between EK certificate and root (EK Credential Profile, 2.2.1.5.2).
const (
	chainFirst = 0x01c00100
	chainLast  = 0x01c001ff
	maxChain   = 15
)

// EK is an endorsement key with what the manufacturer left in the TPM about it.
type EK struct {
	Public []byte   // TPMT_PUBLIC
	Certs  [][]byte // DER: the EK certificate first, then intermediates; empty when the TPM has none
	// Problem says why a certificate that the TPM has was left out: it cannot be read, or is for another key. Else nil.
	Problem error

	key *Key
}

// EndorsementKey returns the first endorsement key that the TPM has a certificate for, of the templates RSA-2048, ECC P-256 and
// the high range. A TPM without certificates gives its RSA-2048 key, or P-256 where it makes no RSA keys: that is no error, the
// operator can have an allow-list.
func (t *TPM) EndorsementKey(ctx context.Context) (EK, error) {
	var ek EK
	err := t.do("endorsement key", func() (err error) {
		ek, err = t.endorsementKey(ctx)
		return err
	})
	return ek, err
}

func (t *TPM) endorsementKey(ctx context.Context) (EK, error) {
	var problem error
	for _, tm := range ekTemplates {
		if err := ctx.Err(); err != nil {
			return EK{}, err
		}
		b, err := t.nvRead(ctx, tm.certificate)
		if errors.Is(err, ErrNoIndex) {
			continue
		}
		if err != nil {
			return EK{}, err
		}
		cert, err := tpm.ParseEKCertificate(b)
		if err != nil { // a blank or damaged certificate is as good as none
			problem = errors.Join(problem, fmt.Errorf("NV index %#08x: %w", tm.certificate, err))
			continue
		}
		key, err := t.certifiedKey(ctx, tm, cert)
		if err != nil {
			problem = errors.Join(problem, fmt.Errorf("NV index %#08x: %w", tm.certificate, err))
			continue
		}
		chain, err := t.chain(ctx)
		if err != nil {
			return EK{}, err
		}
		return EK{Public: key.Public(), Certs: append([][]byte{cert.Raw}, chain...), Problem: problem, key: key}, nil
	}
	var failed error
	for _, tm := range ekTemplates[:2] {
		key, err := t.key(tm.template)
		if err == nil {
			return EK{Public: key.Public(), Problem: problem, key: key}, nil
		}
		failed = errors.Join(failed, err)
	}
	return EK{}, failed
}

// certifiedKey makes the key of a template and checks that it is the certificate's. Where a manufacturer put something into
// the unique field, it stands in an NV index beside the certificate.
func (t *TPM) certifiedKey(ctx context.Context, tm ekTemplate, cert *x509.Certificate) (*Key, error) {
	used := tm.template
	if tm.nonce != 0 {
		nonce, err := t.nvRead(ctx, tm.nonce)
		if err != nil && !errors.Is(err, ErrNoIndex) {
			return nil, err
		}
		if len(nonce) != 0 && len(nonce) <= used.uniqueSize {
			used.unique = nonce
			used.name += "-nonce"
		}
	}
	key, err := t.key(used)
	if err != nil {
		return nil, err
	}
	if err := tpm.EKMatchesCertificate(key.public, cert); err != nil {
		return nil, err
	}
	return key, nil
}

// chain reads the certificates in the chain range. They may run on from one index into the next, or stand padded in one each.
func (t *TPM) chain(ctx context.Context) ([][]byte, error) {
	indices, err := t.handles(chainFirst, chainLast)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	var rest []byte
	for _, h := range indices {
		b, err := t.nvRead(ctx, uint32(h))
		if errors.Is(err, ErrNoIndex) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var certs [][]byte
		certs, rest = splitCertificates(append(rest, b...))
		out = append(out, certs...)
	}
	return out[:min(len(out), maxChain)], nil
}

// splitCertificates cuts DER structures from the front of b. rest is the beginning of one that goes on in the next index; padding
// is dropped.
func splitCertificates(b []byte) (certs [][]byte, rest []byte) {
	for len(b) > 4 && b[0] == 0x30 {
		var outer asn1.RawValue
		after, err := asn1.Unmarshal(b, &outer)
		if err != nil {
			return certs, bytes.Clone(b)
		}
		certs = append(certs, bytes.Clone(outer.FullBytes))
		b = after
	}
	return certs, nil
}

// Activate decrypts a credential that was made for ek and the Name of ak: a TPM2B_ID_OBJECT and a TPM2B_ENCRYPTED_SECRET, as
// tpm.MakeCredential returns them. The TPM does so only when both keys are its own.
func (t *TPM) Activate(ek EK, ak *Key, blob, secret []byte) ([]byte, error) {
	if ek.key == nil || ak == nil {
		return nil, errors.New("TPM: activate credential: endorsement or attestation key is missing")
	}
	id, err := unsize(blob)
	if err != nil {
		return nil, fmt.Errorf("TPM: activate credential: blob: %w", err)
	}
	encrypted, err := unsize(secret)
	if err != nil {
		return nil, fmt.Errorf("TPM: activate credential: secret: %w", err)
	}
	var out []byte
	err = t.do("activate credential", func() error {
		return t.with(ak, func(akHandle tpm2.NamedHandle) error {
			return t.with(ek.key, func(ekHandle tpm2.NamedHandle) error {
				rsp, err := tpm2.ActivateCredential{
					ActivateHandle: tpm2.AuthHandle{Handle: akHandle.Handle, Name: akHandle.Name, Auth: tpm2.PasswordAuth(nil)},
					KeyHandle:      tpm2.AuthHandle{Handle: ekHandle.Handle, Name: ekHandle.Name, Auth: ek.key.authorization()},
					CredentialBlob: tpm2.TPM2BIDObject{Buffer: id}, Secret: tpm2.TPM2BEncryptedSecret{Buffer: encrypted},
				}.Execute(t.link)
				if err == nil {
					out = rsp.CertInfo.Buffer
				}
				return err
			})
		})
	})
	return out, err
}

// authorization returns how an endorsement key is used: the high-range ones by their empty password, the low-range ones only by
// policy A, which asks for the authorization of the endorsement hierarchy (EK Credential Profile, B.6.2).
func (k *Key) authorization() tpm2.Session {
	if k.template.attributes&tpm.AttrUserWithAuth != 0 {
		return tpm2.PasswordAuth(nil)
	}
	return tpm2.Policy(tpm2.TPMAlgSHA256, 16,
		func(link transport.TPM, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
			_, err := tpm2.PolicySecret{AuthHandle: tpm2.TPMRHEndorsement, PolicySession: session, NonceTPM: nonce}.Execute(link)
			return err
		})
}

// unsize takes the size from the front of a TPM2B.
func unsize(b []byte) ([]byte, error) {
	if len(b) < 2 || int(b[0])<<8|int(b[1]) != len(b)-2 {
		return nil, fmt.Errorf("%w: the size in front does not fit %d bytes", tpm.ErrMalformed, len(b))
	}
	return b[2:], nil
}
