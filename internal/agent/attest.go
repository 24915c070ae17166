package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/tpm"
)

// Report is what one attestation was like.
type Report struct {
	Node      string
	Time      time.Time
	Trigger   Trigger
	Took      time.Duration // from the trigger to the answer
	Bytes     int           // of the Evidence
	IMAOffset uint64        // from where on the IMA list was sent
	// Attestation is the answer; nil when Err is set.
	Attestation *protocol.Attestation
	Err         error
}

// errTPM marks failures of the TPM or of its driver: the agent closes it and opens it anew.
var errTPM = errors.New("the TPM failed")

// maxAgain bounds how often one attestation goes on with a fresh challenge from a refusal.
const maxAgain = 3

// maxNonce is the largest qualifying data that TPMs take: a digest of the largest hash (TPM 2.0 Library part 2, TPM2B_DATA).
const maxNonce = 64

// attester makes Evidence and sends it.
type attester struct {
	node string
	tpm  TPM
	host Host
	link Link
	next *protocol.Challenge // nil: ask for one
	now  func() time.Time
	tap  func(document []byte)
	tag  *nvTag
	// statement is what the TPM signs with the quotes; nil, and empty, when there is nothing to say.
	statement func() []byte
}

// attest does one attestation: challenge (when there is no good one from the answer before), Evidence, verdict.
func (a *attester) attest(ctx context.Context, why Trigger) Report {
	r := Report{Node: a.node, Time: a.now(), Trigger: why}
	r.Attestation, r.Err = a.exchange(ctx, &r)
	r.Took = a.now().Sub(r.Time)
	return r
}

func (a *attester) exchange(ctx context.Context, r *Report) (*protocol.Attestation, error) {
	ch, err := a.challenge(ctx)
	if err != nil {
		return nil, err
	}
	for again := 0; ; again++ {
		if n := len(ch.Nonce); n > maxNonce {
			return nil, fmt.Errorf("the challenge of AIAS has %d bytes, at most %d are taken", n, maxNonce) // the TPM would refuse it, and is not to blame
		}
		doc, err := collect(a.tpm, a.host, a.node, ch, a.states()...)
		if err != nil {
			return nil, err
		}
		doc.AssetTag = a.tag.answer(a.tpm, ch.AssetTag, ch.Nonce)
		body, err := evidence.Encode(doc)
		if err != nil {
			return nil, fmt.Errorf("encode the Evidence: %w", err)
		}
		r.Bytes, r.IMAOffset = len(body), doc.IMAOffset
		if a.tap != nil {
			a.tap(body)
		}
		out, err := a.link.Attest(ctx, body)
		if fresh := freshChallenge(err); fresh != nil && again < maxAgain {
			ch = fresh // whatever the clock of this worker says: AIAS has just made it
			continue
		}
		if err != nil {
			return nil, err
		}
		a.next = &out.Next
		return out, nil
	}
}

// challenge takes the challenge that came with the last answer, or asks for one when there is none or it ran out. A challenge is used
// once, whatever comes of it.
func (a *attester) challenge(ctx context.Context) (*protocol.Challenge, error) {
	ch := a.next
	a.next = nil
	if ch != nil && len(ch.Nonce) > 0 && a.now().Before(ch.Expires) {
		return ch, nil
	}
	return a.link.Challenge(ctx)
}

// states is the statement of this moment, at most one.
func (a *attester) states() [][]byte {
	if a.statement == nil {
		return nil
	}
	return [][]byte{a.statement()}
}

// collect makes the Evidence that answers a challenge: quotes first, which cover the statement, then the logs that they cover.
func collect(t TPM, host Host, node string, ch *protocol.Challenge, statement ...[]byte) (*evidence.Document, error) {
	doc := &evidence.Document{Version: evidence.Version, Node: node, Nonce: ch.Nonce, AK: t.AKPublic(), Statement: slices.Concat(statement...)}
	if err := quote(t, ch, doc); err != nil {
		return nil, err
	}
	log, err := host.EventLog()
	if err != nil {
		return nil, fmt.Errorf("read the firmware log: %w", err)
	}
	if sum := sha256.Sum256(log); len(log) > 0 && bytes.Equal(sum[:], ch.EventLogDigest) {
		doc.EventLogDigest = sum[:]
	} else {
		doc.EventLog = log
	}
	if err := readIMA(host, ch, doc); err != nil {
		return nil, err
	}
	facts, err := host.Facts()
	if err != nil {
		return nil, fmt.Errorf("read the facts: %w", err)
	}
	return doc, addFacts(doc, facts, ch.FactsDigest)
}

// quote quotes every bank of the challenge that the TPM has.
func quote(t TPM, ch *protocol.Challenge, doc *evidence.Document) error {
	banks, err := t.Banks()
	if err != nil {
		return fmt.Errorf("%w: read its banks: %w", errTPM, err)
	}
	var quoted []tpm.Alg
	var asked []string
	for _, sel := range ch.Quote {
		asked = append(asked, sel.Bank)
		alg, err := tpm.ParseHashAlg(sel.Bank)
		if err != nil {
			continue // a bank that a newer AIAS knows: leave it out, as one that this TPM lacks
		}
		pcrs := tpm.PCRs(sel.PCRs...)
		if pcrs.Len() == 0 || !slices.Contains(banks, alg) || slices.Contains(quoted, alg) || len(doc.Quotes) == evidence.MaxQuotes {
			continue
		}
		quoted = append(quoted, alg)
		q, err := t.Quote(evidence.Qualify(ch.Nonce, doc.Statement), alg, pcrs)
		if err != nil {
			return fmt.Errorf("%w: quote bank %s: %w", errTPM, alg, err)
		}
		doc.Quotes = append(doc.Quotes, q)
	}
	if len(doc.Quotes) == 0 {
		return fmt.Errorf("the TPM has none of the banks that AIAS asks for (%.20q): enable one in the firmware setup", asked[:min(len(asked), 8)])
	}
	return nil
}

// readIMA adds the IMA list: from the point that AIAS has verified when this is still the same boot, else all of it. A list that is
// shorter than that point is sent whole: AIAS judges what that means.
func readIMA(host Host, ch *protocol.Challenge, doc *evidence.Document) error {
	q, err := tpm.ParseQuote(doc.Quotes[0].Message)
	if err != nil {
		return fmt.Errorf("%w: %w", errTPM, err)
	}
	if ch.IMAOffset > 0 && q.ResetCount == ch.ResetCount && q.RestartCount == ch.RestartCount {
		if list, err := host.IMA(ch.IMAOffset); err == nil {
			doc.IMA, doc.IMAOffset = list, ch.IMAOffset
			return nil
		}
	}
	if doc.IMA, err = host.IMA(0); err != nil {
		return fmt.Errorf("read the IMA list: %w", err)
	}
	return nil
}
