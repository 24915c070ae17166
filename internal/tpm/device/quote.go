package device

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/tpm"
)

// ErrMoving says that PCRs kept changing while they were quoted and read.
var ErrMoving = errors.New("the PCRs keep changing")

const (
	quoteAttempts = 16 // each takes milliseconds; IMA does not extend faster than that for long
	readAtOnce    = 8  // PCRs that TPM2_PCR_Read returns at most (TPML_DIGEST)
)

// Quote signs the selected PCRs by ak with nonce as qualifying data, one quote for each selection, and reads the values that
// its digest covers. When a PCR is extended between the two, both are done again. Quotes of two selections are made one after the
// other, so they can tell of different moments.
func (t *TPM) Quote(ak *Key, nonce []byte, selections []tpm.Selection) ([]evidence.Quote, error) {
	if ak == nil {
		return nil, errors.New("TPM: quote: attestation key is missing")
	}
	quotes := make([]evidence.Quote, 0, len(selections))
	err := t.do("quote", func() error {
		return t.with(ak, func(handle tpm2.NamedHandle) error {
			for _, s := range selections {
				q, err := t.quote(ak, handle, nonce, s)
				if err != nil {
					return fmt.Errorf("bank %v: %w", s.Alg, err)
				}
				quotes = append(quotes, q)
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return quotes, nil
}

func (t *TPM) quote(ak *Key, handle tpm2.NamedHandle, nonce []byte, s tpm.Selection) (evidence.Quote, error) {
	for range quoteAttempts {
		rsp, err := tpm2.Quote{
			SignHandle:     tpm2.AuthHandle{Handle: handle.Handle, Name: handle.Name, Auth: tpm2.PasswordAuth(nil)},
			QualifyingData: tpm2.TPM2BData{Buffer: nonce}, InScheme: ak.scheme(),
			PCRSelect: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{wireSelection(s)}},
		}.Execute(t.link)
		if err != nil {
			return evidence.Quote{}, err
		}
		q := evidence.Quote{Message: rsp.Quoted.Bytes(), Signature: tpm2.Marshal(rsp.Signature)}
		attest, err := tpm.ParseQuote(q.Message)
		if err != nil {
			return evidence.Quote{}, err
		}
		bank, err := t.readBank(s)
		if err != nil {
			return evidence.Quote{}, err
		}
		digest, err := tpm.PCRDigest(tpm.AlgSHA256, attest.Selections, map[tpm.Alg]*tpm.Bank{s.Alg: bank})
		if err != nil {
			return evidence.Quote{}, err
		}
		if !bytes.Equal(digest, attest.PCRDigest) {
			continue
		}
		q.PCRs = []evidence.PCRBank{travel(bank)}
		return q, nil
	}
	return evidence.Quote{}, fmt.Errorf("%w: %d attempts", ErrMoving, quoteAttempts)
}

// ReadPCRs reads the selected values, one bank for each selection.
func (t *TPM) ReadPCRs(selections []tpm.Selection) ([]*tpm.Bank, error) {
	banks := make([]*tpm.Bank, 0, len(selections))
	err := t.do("read PCRs", func() error {
		for _, s := range selections {
			bank, err := t.readBank(s)
			if err != nil {
				return fmt.Errorf("bank %v: %w", s.Alg, err)
			}
			banks = append(banks, bank)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return banks, nil
}

func (t *TPM) readBank(s tpm.Selection) (*tpm.Bank, error) {
	if s.Alg.Size() == 0 {
		return nil, fmt.Errorf("%w: %v is no bank that can be replayed", tpm.ErrUnsupported, s.Alg)
	}
	bank := &tpm.Bank{Alg: s.Alg}
	indices := s.PCRs.Indices()
	for len(indices) > 0 {
		part := indices[:min(readAtOnce, len(indices))]
		indices = indices[len(part):]
		selection := wireSelection(tpm.Selection{Alg: s.Alg, PCRs: tpm.PCRs(part...)})
		rsp, err := tpm2.PCRRead{
			PCRSelectionIn: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{selection}},
		}.Execute(t.link)
		if err != nil {
			return nil, err
		}
		if len(rsp.PCRValues.Digests) != len(part) {
			return nil, fmt.Errorf("the TPM gives %d of %d values: is the bank active?", len(rsp.PCRValues.Digests), len(part))
		}
		for i, index := range part {
			bank.Values[index] = rsp.PCRValues.Digests[i].Buffer
		}
	}
	return bank, nil
}

// Extend extends a PCR by one digest in each bank given. The kernel does this for what it measures; an agent has no reason to,
// the demo and the tests do.
func (t *TPM) Extend(pcr int, digests map[tpm.Alg][]byte) error {
	if pcr < 0 || pcr >= tpm.NumPCRs {
		return fmt.Errorf("TPM: extend: there is no PCR %d", pcr)
	}
	var list tpm2.TPMLDigestValues
	for _, alg := range tpm.HashAlgs {
		if digest, ok := digests[alg]; ok {
			list.Digests = append(list.Digests, tpm2.TPMTHA{HashAlg: tpm2.TPMIAlgHash(alg), Digest: digest})
		}
	}
	if len(list.Digests) != len(digests) {
		return fmt.Errorf("TPM: extend PCR %d: %w: digest of an unknown algorithm", pcr, tpm.ErrUnsupported)
	}
	for _, d := range list.Digests {
		if alg := tpm.Alg(d.HashAlg); len(d.Digest) != alg.Size() {
			return fmt.Errorf("TPM: extend PCR %d: a digest of %v has %d bytes, want %d", pcr, alg, len(d.Digest), alg.Size())
		}
	}
	return t.do(fmt.Sprintf("extend PCR %d", pcr), func() error {
		handle := tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)}
		_, err := tpm2.PCRExtend{PCRHandle: handle, Digests: list}.Execute(t.link)
		return err
	})
}

func wireSelection(s tpm.Selection) tpm2.TPMSPCRSelection {
	return tpm2.TPMSPCRSelection{Hash: tpm2.TPMIAlgHash(s.Alg), PCRSelect: []byte{byte(s.PCRs), byte(s.PCRs >> 8), byte(s.PCRs >> 16)}}
}

// travel gives the values the form that Evidence has.
func travel(b *tpm.Bank) evidence.PCRBank {
	out := evidence.PCRBank{Alg: b.Alg, Values: make(map[int][]byte)}
	for i, v := range b.Values {
		if v != nil {
			out.Values[i] = v
		}
	}
	return out
}

// scheme returns the key's own scheme with SHA-256, in the form that commands take.
func (k *Key) scheme() tpm2.TPMTSigScheme {
	alg := tpm2.TPMAlgID(k.template.scheme)
	return tpm2.TPMTSigScheme{Scheme: alg, Details: tpm2.NewTPMUSigScheme(alg, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256})}
}
