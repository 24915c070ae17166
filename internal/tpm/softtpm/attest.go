package softtpm

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"math/big"

	"touchstone.dev/touchstone/internal/tpm"
)

const (
	generatedMagic = 0xff544347
	tagNV          = 0x8014
	tagCertify     = 0x8017
	tagQuote       = 0x8018
)

// Clock is what a TPM says about its time and its firmware in everything that it attests (TPMS_CLOCK_INFO).
type Clock struct {
	Clock           uint64 // milliseconds
	ResetCount      uint32
	RestartCount    uint32
	Safe            bool
	FirmwareVersion uint64
}

// Quote signs the PCR values in banks that sel selects, with nonce as qualifying data. As in a real TPM, a PCR without a value
// counts as zeros, and a bank that does not exist is quoted with no PCR. It returns a TPMS_ATTEST and a TPMT_SIGNATURE.
func (t *TPM) Quote(nonce []byte, banks []*tpm.Bank, sel []tpm.Selection, clock Clock) (msg, sig []byte) {
	digest := sha256.New()
	list := binary.BigEndian.AppendUint32(nil, uint32(len(sel)))
	for _, s := range sel {
		bank := find(banks, s.Alg)
		if bank == nil {
			s.PCRs = 0
		}
		list = binary.BigEndian.AppendUint16(list, uint16(s.Alg))
		list = append(list, 3, byte(s.PCRs), byte(s.PCRs>>8), byte(s.PCRs>>16))
		for _, i := range s.PCRs.Indices() {
			value := bank.Values[i]
			if value == nil {
				value = make([]byte, s.Alg.Size())
			}
			digest.Write(value)
		}
	}
	msg = t.attest(tagQuote, nonce, clock, appendSized(list, digest.Sum(nil)))
	return msg, t.Sign(msg)
}

// Certify signs that the primary key with this TPMT_PUBLIC is loaded in the TPM (TPM2_Certify).
func (t *TPM) Certify(area, nonce []byte, clock Clock) (msg, sig []byte) {
	object := name(area)
	msg = t.attest(tagCertify, nonce, clock, appendSized(appendSized(nil, object), qualifiedName(object)))
	return msg, t.Sign(msg)
}

// Sign signs any bytes with the attestation key, which a restricted key in a TPM refuses to do. It returns a TPMT_SIGNATURE.
func (t *TPM) Sign(message []byte) []byte {
	digest := sha256.Sum256(message)
	r, s, err := ecdsa.Sign(rand.Reader, t.ak, digest[:])
	if err != nil {
		panic("softtpm: " + err.Error()) // neither our keys nor the system's random source fail
	}
	sig := binary.BigEndian.AppendUint16(nil, uint16(tpm.AlgECDSA))
	sig = binary.BigEndian.AppendUint16(sig, uint16(tpm.AlgSHA256))
	return appendSized(appendSized(sig, fill(r)), fill(s))
}

// WithMagic returns a copy of the attestation message with another magic: 0 makes what an attacker on a host can have a real
// restricted key sign.
func WithMagic(message []byte, magic uint32) []byte {
	out := append([]byte(nil), message...)
	binary.BigEndian.PutUint32(out, magic)
	return out
}

// WithType returns a copy of the attestation message that says to be of another TPM_ST type.
func WithType(message []byte, tag uint16) []byte {
	out := append([]byte(nil), message...)
	binary.BigEndian.PutUint16(out[4:], tag)
	return out
}

func (t *TPM) attest(tag uint16, nonce []byte, clock Clock, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 192), generatedMagic)
	b = binary.BigEndian.AppendUint16(b, tag)
	b = appendSized(appendSized(b, t.qualified), nonce)
	b = binary.BigEndian.AppendUint64(b, clock.Clock)
	b = binary.BigEndian.AppendUint32(b, clock.ResetCount)
	b = binary.BigEndian.AppendUint32(b, clock.RestartCount)
	if clock.Safe {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = binary.BigEndian.AppendUint64(b, clock.FirmwareVersion)
	return append(b, body...)
}

func find(banks []*tpm.Bank, alg tpm.Alg) *tpm.Bank {
	for _, b := range banks {
		if b.Alg == alg {
			return b
		}
	}
	return nil
}

func fill(n *big.Int) []byte { return n.FillBytes(make([]byte, 32)) }

// CertifyNV signs that an NV index holds contents (TPM2_NV_Certify); public is its TPMS_NV_PUBLIC.
func (t *TPM) CertifyNV(public, contents, nonce []byte, clock Clock) (msg, sig []byte) {
	body := appendSized(nil, name(public))
	body = appendSized(binary.BigEndian.AppendUint16(body, 0), contents)
	msg = t.attest(tagNV, nonce, clock, body)
	return msg, t.Sign(msg)
}

// NVPublic writes the TPMS_NV_PUBLIC of an index that was written, with SHA-256 Names and no policy.
func NVPublic(index, attributes uint32, size int) []byte {
	b := binary.BigEndian.AppendUint32(nil, index)
	b = binary.BigEndian.AppendUint16(b, uint16(tpm.AlgSHA256))
	b = binary.BigEndian.AppendUint32(b, attributes|tpm.NVWritten)
	return binary.BigEndian.AppendUint16(appendSized(b, nil), uint16(size))
}
