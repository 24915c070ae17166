package agent

import (
	"context"
	"crypto"
	"errors"
	"fmt"

	"touchstone.dev/touchstone/internal/assettag"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/device"
)

// deviceTPM is a TPM with the keys that the agent uses.
type deviceTPM struct {
	*device.TPM
	ek  device.EK // read when it is needed: at enrolment only
	ak  *device.Key
	tls *device.TLSKey
}

// OpenTPM opens a TPM ("/dev/tpmrm0", or "unix:" and the socket of a software TPM) and makes the agent's keys in it: the same ones
// at each call, so that nothing has to be stored.
func OpenTPM(address string) (TPM, error) {
	dev, err := device.Open(address)
	if err != nil {
		return nil, err
	}
	t := &deviceTPM{TPM: dev}
	if t.ak, err = dev.AttestationKey("ecc"); err == nil {
		t.tls, err = dev.TLSKey()
	}
	if err != nil {
		dev.Close() //nolint:errcheck // the first error tells more
		return nil, err
	}
	return t, nil
}

func (t *deviceTPM) Endorsement() (public []byte, certs [][]byte, err error) {
	if t.ek, err = t.TPM.EndorsementKey(context.Background()); err != nil {
		return nil, nil, err
	}
	return t.ek.Public, t.ek.Certs, nil
}

func (t *deviceTPM) AKPublic() []byte         { return t.ak.Public() }
func (t *deviceTPM) TLSPublic() []byte        { return t.tls.Area() }
func (t *deviceTPM) TLSSigner() crypto.Signer { return t.tls }

func (t *deviceTPM) Activate(credential, secret []byte) ([]byte, error) {
	return t.TPM.Activate(t.ek, t.ak, credential, secret)
}

func (t *deviceTPM) CertifyTLS(qualifying []byte) (attest, signature []byte, err error) {
	return t.Certify(t.ak, t.tls, qualifying)
}

func (t *deviceTPM) Quote(nonce []byte, bank tpm.Alg, pcrs tpm.PCRSet) (evidence.Quote, error) {
	quotes, err := t.TPM.Quote(t.ak, nonce, []tpm.Selection{{Alg: bank, PCRs: pcrs}})
	if err != nil {
		return evidence.Quote{}, err
	}
	if len(quotes) != 1 {
		return evidence.Quote{}, fmt.Errorf("the TPM gave %d quotes, want 1", len(quotes))
	}
	return quotes[0], nil
}

func (t *deviceTPM) StoreTag(index uint32, record, owner []byte) error {
	return t.NVStore(index, assettag.Attributes, record, owner)
}

func (t *deviceTPM) RemoveTag(index uint32, owner []byte) error {
	err := t.NVDelete(index, assettag.Attributes, assettag.Size, owner)
	if errors.Is(err, device.ErrIndexTaken) {
		return nil // StoreTag did not make it
	}
	return err
}

func (t *deviceTPM) CertifyTag(index uint32, nonce []byte) (*evidence.NVCertificate, error) {
	public, message, signature, err := t.NVCertify(t.ak, index, nonce)
	if errors.Is(err, device.ErrNoIndex) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &evidence.NVCertificate{Public: public, Message: message, Signature: signature}, nil
}

func (t *deviceTPM) ImageKey(bank tpm.Alg, pcrs tpm.PCRSet, qualifying []byte) (*ImageKey, error) {
	key, err := t.DecryptionKey(bank, pcrs)
	if err != nil {
		return nil, err
	}
	k := &ImageKey{Bank: bank, Exchange: key, Public: key.Area()}
	k.Certify, k.Signature, err = t.CertifyDecryption(t.ak, key, qualifying)
	return k, err
}
