package authority

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/verifier"
)

// judge is an Appraiser whose rules a test can see at a glance: Evidence is authentic when the quote is signed over the nonce, and good unless the IMA
// list holds one of the forbidden words. It keeps the contract of the real one on resuming and on counters.
type judge struct {
	id        string
	forbidden []string

	calls    atomic.Int64
	whole    atomic.Int64 // calls that began the list at its start
	mu       sync.Mutex
	verdicts map[string]*appraisal.Verdict
}

func newJudge(id string, forbidden ...string) *judge {
	return &judge{id: id, forbidden: forbidden, verdicts: map[string]*appraisal.Verdict{}}
}

func (j *judge) Snapshot() string { return j.id }

func (j *judge) Selections() []tpm.Selection {
	return []tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: tpm.PCRs(0, 7, 10)}}
}

func (j *judge) Appraise(doc *evidence.Document, exp verifier.Expectation) (*verifier.Outcome, error) {
	j.calls.Add(1)
	if doc.IMAOffset == 0 {
		j.whole.Add(1)
	}
	switch {
	case bytes.Contains(doc.IMA, []byte("<panic>")):
		panic("as the test asked")
	case bytes.Contains(doc.IMA, []byte("<malformed>")):
		return nil, fmt.Errorf("%w: as the test asked", verifier.ErrMalformed)
	}
	refused := func(why string) (*verifier.Outcome, error) {
		return &verifier.Outcome{Verdict: j.verdict(why), Checkpoint: exp.Checkpoint, Snapshot: j.id}, nil
	}
	q, err := tpm.ParseQuote(doc.Quotes[0].Message)
	if err != nil {
		return refused(err.Error())
	}
	sig, err := tpm.ParseSignature(doc.Quotes[0].Signature)
	if err != nil || exp.AK.Verify(doc.Quotes[0].Message, sig) != nil || !bytes.Equal(q.ExtraData, exp.Nonce) {
		return refused("quote is not of this challenge or key")
	}
	if c := exp.Checkpoint; c != nil && (q.ResetCount < c.ResetCount || q.ResetCount == c.ResetCount && q.Clock < c.Clock) {
		return refused("counters went backwards")
	}
	state := []byte{}
	if doc.IMAOffset > 0 {
		c := exp.Checkpoint
		if c == nil || c.Snapshot != j.id || c.ResetCount != q.ResetCount || c.IMAOffset != doc.IMAOffset {
			return nil, verifier.ErrResume
		}
		state = c.State
	}
	log, facts, err := j.logs(doc, exp)
	if err != nil {
		return nil, err
	}
	why := string(state)
	for _, word := range j.forbidden {
		if bytes.Contains(doc.IMA, []byte(word)) {
			why = "unknown program " + word
		}
	}
	latch := tpm.Latch(tpm.AlgSHA256, doc.Quotes[0].PCRs[0].Values[tpm.LatchPCR])
	return &verifier.Outcome{Verdict: j.verdict(why), Authentic: true, Snapshot: j.id, Latch: latch, Checkpoint: &verifier.Checkpoint{
		Snapshot: j.id, Clock: q.Clock, ResetCount: q.ResetCount, RestartCount: q.RestartCount, LogDigest: log, FactsDigest: facts,
		IMAOffset: doc.IMAOffset + uint64(len(doc.IMA)), State: []byte(why),
	}}, nil
}

// logs fetches what was left out, as the real one does when it has to.
func (j *judge) logs(doc *evidence.Document, exp verifier.Expectation) (log, facts []byte, err error) {
	if log = doc.EventLogDigest; len(doc.EventLog) > 0 {
		log = sha(doc.EventLog)
	} else if len(log) > 0 {
		if _, err := exp.EventLog(log); err != nil {
			return nil, nil, err
		}
	}
	if facts = doc.FactsDigest; len(doc.Facts) > 0 {
		facts, err = evidence.FactsDigest(doc.Facts)
	} else if len(facts) > 0 {
		_, err = exp.Facts(facts)
	}
	return log, facts, err
}

func (j *judge) verdict(why string) *appraisal.Verdict {
	j.mu.Lock()
	defer j.mu.Unlock()
	if v := j.verdicts[why]; v != nil {
		return v
	}
	v := &appraisal.Verdict{Trusted: why == ""}
	for i, name := range appraisal.LevelNames {
		v.Levels = append(v.Levels, appraisal.Level{Level: i + 1, Name: name, Status: appraisal.Pass})
	}
	if why != "" {
		v.Levels[4].Status = appraisal.Fail
		v.Levels[4].Findings = []appraisal.Finding{{Rule: "runtime.files", Status: appraisal.Fail, Provenance: "proven", Message: why}}
	}
	j.verdicts[why] = v
	return v
}
