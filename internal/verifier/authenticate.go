package verifier

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/tpm"
)

// authentic is what the quotes of a document prove.
type authentic struct {
	quote claims.Quote
	banks []tpm.Bank // quoted values, ascending by algorithm
	ak    *tpm.Public
	nonce []byte // that the quotes carry
}

// refusal is a check of authenticity that failed. It becomes a finding on every level: nothing in the Evidence counts.
type refusal struct{ appraisal.Finding }

func (r *refusal) Error() string { return r.Message }

func refuse(message, expected, observed, cause, remedy string) error {
	return &refusal{appraisal.Finding{Rule: appraisal.RuleEvidence, Status: appraisal.Fail, Provenance: string(claims.NotKnown), Message: message,
		Expected: expected, Observed: observed, Cause: cause, Remedy: remedy}}
}

// authenticate checks every quote: key, signature, TPM_GENERATED magic and type, nonce, PCR digest over the values that came along (TPM 2.0
// Library part 3, 18.4). The error is a refusal, or wraps ErrMalformed.
func authenticate(doc *evidence.Document, exp *Expectation) (*authentic, error) {
	a := new(authentic)
	key, err := a.key(doc, exp)
	if err != nil {
		return nil, err
	}
	nonce := exp.Nonce
	if a.quote.Fresh = nonce != nil; !a.quote.Fresh {
		nonce = doc.Nonce
	}
	if len(nonce) == 0 {
		return nil, refuse("no nonce: the quote could be from any time", "a nonce", "none", "the Evidence was packed without nonce", "pack it with --nonce")
	}
	if len(doc.Quotes) == 0 {
		return nil, fmt.Errorf("%w: no quote", ErrMalformed)
	}
	qualifying := evidence.Qualify(nonce, doc.Statement)
	for i := range doc.Quotes {
		if err := a.addQuote(&doc.Quotes[i], key, qualifying, i == 0); err != nil {
			return nil, err
		}
	}
	a.ak, a.nonce = key, nonce
	slices.SortFunc(a.banks, func(x, y tpm.Bank) int { return int(x.Alg) - int(y.Alg) })
	for i := range a.banks {
		a.quote.Banks = append(a.quote.Banks, a.banks[i].Alg)
	}
	return a, nil
}

func (a *authentic) key(doc *evidence.Document, exp *Expectation) (*tpm.Public, error) {
	if exp.AK != nil {
		a.quote.Enrolled = true
		return exp.AK, nil
	}
	key, err := tpm.ParsePublic(doc.AK)
	if err != nil {
		return nil, fmt.Errorf("%w: attestation key: %w", ErrMalformed, err)
	}
	if err := key.CheckAttestationKey(); errors.Is(err, tpm.ErrNoAttributes) {
		a.quote.KeyWithoutAttributes = true
	} else if err != nil {
		return nil, refuse("the key that signed is no attestation key: "+err.Error(), "a restricted signing key that never leaves its TPM", "another key",
			"a key that can sign anything, so also a made-up quote", "make the key with tpm2_createak, or enrol the worker")
	}
	return key, nil
}

func (a *authentic) addQuote(q *evidence.Quote, key *tpm.Public, nonce []byte, first bool) error {
	sig, err := tpm.ParseSignature(q.Signature)
	if err != nil {
		return fmt.Errorf("%w: signature of the quote: %w", ErrMalformed, err)
	}
	if err := key.Verify(q.Message, sig); err != nil {
		return refuse("the signature of the quote is not by the attestation key", "a signature by the attestation key", err.Error(),
			"the quote is of another TPM, or was altered", "attest again; enrol the worker if its TPM was replaced")
	}
	quote, err := tpm.ParseQuote(q.Message)
	switch {
	case errors.Is(err, tpm.ErrMagic), errors.Is(err, tpm.ErrNotQuote):
		return refuse("what was signed is not a quote that a TPM made: "+err.Error(), "TPMS_ATTEST of type quote with TPM_GENERATED magic", "something else",
			"a forged quote, signed as if it were data", "treat the worker as compromised")
	case err != nil:
		return fmt.Errorf("%w: quote: %w", ErrMalformed, err)
	}
	if subtle.ConstantTimeCompare(quote.ExtraData, nonce) != 1 {
		return refuse("the quote answers another challenge", fmt.Sprintf("%x", nonce), fmt.Sprintf("%x", quote.ExtraData),
			"an old quote, or one made for somebody else, was sent again", "attest again with the challenge of this Verifier")
	}
	if err := a.takeValues(q, quote, sig.Hash); err != nil {
		return err
	}
	if first {
		a.quote.Clock, a.quote.ResetCount, a.quote.RestartCount = quote.Clock, quote.ResetCount, quote.RestartCount
		a.quote.Safe, a.quote.FirmwareVersion = quote.Safe, quote.FirmwareVersion
	} else if a.quote.ResetCount != quote.ResetCount || a.quote.RestartCount != quote.RestartCount {
		return refuse("the quotes are of different boots", fmt.Sprintf("reset count %d", a.quote.ResetCount), fmt.Sprintf("reset count %d", quote.ResetCount),
			"the worker rebooted between two quotes", "attest again")
	}
	return nil
}

// takeValues checks that the PCR values of q give the quoted digest, and keeps those that are selected.
func (a *authentic) takeValues(q *evidence.Quote, quote *tpm.Quote, hash tpm.Alg) error {
	given := make(map[tpm.Alg]*tpm.Bank, len(q.PCRs))
	for i := range q.PCRs {
		p := &q.PCRs[i]
		if given[p.Alg] != nil {
			return fmt.Errorf("%w: bank %v is there twice", ErrMalformed, p.Alg)
		}
		b := &tpm.Bank{Alg: p.Alg}
		for n, v := range p.Values {
			if n < 0 || n >= tpm.NumPCRs || len(v) != p.Alg.Size() || len(v) == 0 {
				return fmt.Errorf("%w: PCR %d of bank %v has a value of %d bytes", ErrMalformed, n, p.Alg, len(v))
			}
			b.Values[n] = v
		}
		given[p.Alg] = b
	}
	digest, err := tpm.PCRDigest(hash, quote.Selections, given)
	if err != nil {
		return refuse("PCR values are missing: "+err.Error(), "the value of each quoted PCR", "too few values", "values and quote do not belong together", "read the PCRs together with the quote")
	}
	if !bytes.Equal(digest, quote.PCRDigest) {
		return refuse("the PCR values are not the quoted ones", fmt.Sprintf("%x", quote.PCRDigest), fmt.Sprintf("%x", digest),
			"a PCR was extended between quote and reading, or the values were altered", "attest again")
	}
	for _, s := range quote.Selections {
		if err := a.selected(s, given[s.Alg]); err != nil {
			return err
		}
	}
	return nil
}

func (a *authentic) selected(s tpm.Selection, from *tpm.Bank) error {
	if from == nil {
		return nil // an empty selection
	}
	i := slices.IndexFunc(a.banks, func(b tpm.Bank) bool { return b.Alg == s.Alg })
	if i < 0 {
		i = len(a.banks)
		a.banks = append(a.banks, tpm.Bank{Alg: s.Alg})
	}
	for _, n := range s.PCRs.Indices() {
		if old := a.banks[i].Values[n]; old != nil && !bytes.Equal(old, from.Values[n]) {
			return refuse(fmt.Sprintf("two quotes give PCR %d of bank %v different values", n, s.Alg), fmt.Sprintf("%x", old), fmt.Sprintf("%x", from.Values[n]),
				"the PCR was extended between the quotes", "attest again")
		}
		a.banks[i].Values[n] = from.Values[n]
	}
	return nil
}

// latch is what the banks say of tpm.LatchPCR: open only if all do in which it was quoted, and one at least.
func (a *authentic) latch() tpm.LatchState {
	state := tpm.LatchUnquoted
	for i := range a.banks {
		switch s := tpm.Latch(a.banks[i].Alg, a.banks[i].Values[tpm.LatchPCR]); {
		case s == tpm.LatchUnquoted:
		case state == tpm.LatchUnquoted, state == tpm.LatchOpen:
			state = s
		case s != tpm.LatchOpen && s != state:
			state = tpm.LatchForeign
		}
	}
	return state
}

// checkCounters refuses Evidence from before the last one: counters never go backwards (TPM 2.0 Library part 1, 36).
func checkCounters(q *claims.Quote, c *Checkpoint) error {
	if c == nil {
		return nil
	}
	back := func(what string, was, is uint64) error {
		return refuse("the TPM's "+what+" went backwards", fmt.Sprintf("at least %d", was), fmt.Sprint(is),
			"a quote from before the last one, a TPM put back to an older state, or another TPM", "attest again; if it stays, treat the worker as compromised")
	}
	switch {
	case q.ResetCount < c.ResetCount:
		return back("reset count", uint64(c.ResetCount), uint64(q.ResetCount))
	case q.ResetCount > c.ResetCount:
		return nil
	case q.RestartCount < c.RestartCount:
		return back("restart count", uint64(c.RestartCount), uint64(q.RestartCount))
	case q.RestartCount == c.RestartCount && q.Clock < c.Clock:
		return back("clock", c.Clock, q.Clock)
	}
	return nil
}
