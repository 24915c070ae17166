package agent

import (
	"crypto"
	"crypto/ecdh"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/tpm"
)

// TPM is what the agent needs of the worker's TPM. Package device implements it; tests bring their own.
type TPM interface {
	// Endorsement returns the TPMT_PUBLIC of the endorsement key, and its certificate (first) with intermediates, DER.
	Endorsement() (public []byte, certs [][]byte, err error)
	// AKPublic returns the TPMT_PUBLIC of the attestation key.
	AKPublic() []byte
	// TLSPublic returns the TPMT_PUBLIC of the key of the client certificate.
	TLSPublic() []byte
	// TLSSigner signs with that key, inside the TPM.
	TLSSigner() crypto.Signer
	// Activate opens a credential that was made for this TPM and its attestation key.
	Activate(credential, secret []byte) ([]byte, error)
	// CertifyTLS has the attestation key certify that the TLS key lives in the same TPM: TPMS_ATTEST and TPMT_SIGNATURE.
	CertifyTLS(qualifying []byte) (attest, signature []byte, err error)
	// Banks returns the active banks.
	Banks() ([]tpm.Alg, error)
	// Quote quotes PCRs of one bank and reads their values.
	Quote(nonce []byte, bank tpm.Alg, pcrs tpm.PCRSet) (evidence.Quote, error)
	// StoreTag makes an NV index hold the record of an asset tag; owner is the authorization of the owner hierarchy.
	StoreTag(index uint32, record, owner []byte) error
	// RemoveTag removes the index, when it is one that StoreTag made.
	RemoveTag(index uint32, owner []byte) error
	// CertifyTag has the attestation key certify what the index holds; nil when it is not there or was never written.
	CertifyTag(index uint32, nonce []byte) (*evidence.NVCertificate, error)
	// ImageKey returns a key that decrypts image keys inside the TPM while PCRs of a bank are as they are now, certified by the attestation key over
	// qualifying data. Its exchange fails with device.ErrStateChanged once they are not.
	ImageKey(bank tpm.Alg, pcrs tpm.PCRSet, qualifying []byte) (*ImageKey, error)
	// Measure extends a PCR with the hash of data, in each active bank.
	Measure(pcr int, data []byte) error
	// Close gives the TPM back.
	Close() error
}

// ImageKey is a key of the TPM, with what proves that it is.
type ImageKey struct {
	Bank      tpm.Alg
	Exchange  ecdh.KeyExchanger
	Public    []byte // TPMT_PUBLIC
	Certify   []byte // TPMS_ATTEST of TPM2_Certify
	Signature []byte // TPMT_SIGNATURE
}
