package verifier

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/assettag"
	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/compliance/verdict"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/policy"
	"touchstone.dev/touchstone/internal/reference"
	"touchstone.dev/touchstone/internal/tpm"
)

// Bounds on what is kept between appraisals, in entries and bytes of a generation.
const (
	keepBoots    = 256     // parsed firmware logs, some 100 kB each
	keepVerdicts = 1 << 17 // a key and a pointer each; verdicts that say the same are one
	keepTexts    = 1 << 12 // different verdicts
	keepRoom     = 64 << 20
	parsedFactor = 4   // bytes of a parsed firmware log for each of its bytes
	sharedCost   = 256 // bytes of an entry whose verdict is kept already
)

type digest [sha256.Size]byte

// Verifier appraises with one policy and one set of references. It is safe for concurrent use.
type Verifier struct {
	policy   *policy.Policy
	refs     *reference.Set
	snapshot string
	banks    []tpm.Alg // that count, as the policy orders them
	// compliance is what the policy demands of a compliance scan.
	compliance *verdict.Rules

	boots    *keep[digest, *claims.Boot]
	verdicts *keep[digest, *appraisal.Verdict] // by everything that a verdict depends on
	texts    *keep[digest, *appraisal.Verdict] // by what it says
	levels   *keep[digest, []appraisal.Level]  // of the boot, by everything that they depend on
}

// New compiles a Verifier. It refuses a policy with an exception for a rule that does not exist.
func New(p *policy.Policy, refs *reference.Set) (*Verifier, error) {
	names := appraisal.RuleNames()
	for _, e := range p.Spec.Exceptions {
		if !slices.Contains(names, e.Rule) {
			return nil, fmt.Errorf("policy: exception for unknown rule %q: see `touchstone policy rules`", e.Rule)
		}
	}
	v := &Verifier{policy: p, refs: refs, compliance: p.Spec.Runtime.Compliance.Rules(),
		boots: newKeep[digest, *claims.Boot](keepBoots, keepRoom), verdicts: newKeep[digest, *appraisal.Verdict](keepVerdicts, keepRoom),
		texts: newKeep[digest, *appraisal.Verdict](keepTexts, keepRoom), levels: newKeep[digest, []appraisal.Level](keepTexts, keepRoom)}
	sum := sha256.Sum256([]byte(p.ID() + " " + refs.ID()))
	v.snapshot = hex.EncodeToString(sum[:16])
	for _, name := range p.Spec.Attestation.Banks {
		a, err := tpm.ParseHashAlg(name)
		if err != nil {
			return nil, err
		}
		v.banks = append(v.banks, a)
	}
	return v, nil
}

// Snapshot names the policy and the references together.
func (v *Verifier) Snapshot() string { return v.snapshot }

// Policy returns the policy; it must not be changed.
func (v *Verifier) Policy() *policy.Policy { return v.policy }

// References returns the references.
func (v *Verifier) References() *reference.Set { return v.refs }

// Selections says what a node should quote: the policy's PCRs in each bank that counts. A node leaves out banks that its TPM lacks.
func (v *Verifier) Selections() []tpm.Selection {
	out := make([]tpm.Selection, len(v.banks))
	for i, a := range v.banks {
		out[i] = tpm.Selection{Alg: a, PCRs: tpm.PCRs(v.policy.Spec.Attestation.PCRs...)}
	}
	return out
}

// Appraise authenticates and judges one document. The errors are ErrMalformed, ErrResume, and those of exp's functions; everything else that is
// wrong is part of the verdict.
func (v *Verifier) Appraise(doc *evidence.Document, exp Expectation) (*Outcome, error) {
	a, err := authenticate(doc, &exp)
	if err == nil {
		err = checkCounters(&a.quote, exp.Checkpoint)
	}
	if r, ok := err.(*refusal); ok { //nolint:errorlint // refusals are never wrapped
		verdict := appraisal.Refused(r.Finding)
		return &Outcome{Verdict: &verdict, Checkpoint: exp.Checkpoint, Snapshot: v.snapshot}, nil
	}
	if err != nil {
		return nil, err
	}
	s := &session{v: v, doc: doc, exp: &exp, authentic: a}
	return s.appraise()
}

// session is one appraisal of authentic Evidence.
type session struct {
	v         *Verifier
	doc       *evidence.Document
	exp       *Expectation
	authentic *authentic
	bank      *tpm.Bank
	log       []byte // digest of the firmware log, nil when there is none
	facts     []byte // digest of the facts
	list      list
	tag       claims.AssetTag
	statement *evidence.Statement
	audit     claims.Audit
	// compliance is the newest scan, held against the statement.
	compliance *claims.Compliance

	detections claims.Detections
}

func (s *session) appraise() (*Outcome, error) {
	s.bank = s.v.strongest(s.authentic.banks)
	for i := range s.bank.Values {
		if s.bank.Values[i] != nil {
			s.authentic.quote.PCRs |= 1 << i
		}
	}
	var err error
	if s.log, s.facts, err = s.digests(); err != nil {
		return nil, err
	}
	if err := s.replayList(); err != nil {
		return nil, err
	}
	s.tag = s.assetTag()
	if err := s.state(); err != nil {
		return nil, err
	}
	bootKey := s.bootKey()
	key := s.verdictKey(bootKey)
	verdict, ok := s.v.verdicts.get(key)
	if !ok {
		if verdict, err = s.judge(bootKey); err != nil {
			return nil, err
		}
		var cost int
		verdict, cost = s.v.intern(verdict)
		s.v.verdicts.put(key, verdict, cost)
	}
	return &Outcome{Verdict: verdict, Authentic: true, Checkpoint: s.checkpoint(), Snapshot: s.v.snapshot, Quote: s.authentic.quote,
		AssetTag: s.tag, Statement: s.statement, Latch: s.authentic.latch()}, nil
}

// strongest picks the quoted bank that claims are read in: the first one of the policy, else the last one quoted (which does not count, and the
// verdict will say so).
func (v *Verifier) strongest(banks []tpm.Bank) *tpm.Bank {
	for _, a := range v.banks {
		for i := range banks {
			if banks[i].Alg == a {
				return &banks[i]
			}
		}
	}
	if len(banks) == 0 {
		return &tpm.Bank{Alg: tpm.AlgSHA256}
	}
	return &banks[len(banks)-1]
}

// digests names log and facts: those that came along, or those that the document says are unchanged.
func (s *session) digests() (log, facts []byte, err error) {
	switch {
	case len(s.doc.EventLog) > 0:
		sum := sha256.Sum256(s.doc.EventLog)
		log = sum[:]
	case len(s.doc.EventLogDigest) > 0:
		if s.exp.EventLog == nil {
			return nil, nil, fmt.Errorf("%w: the firmware log was left out", ErrResume)
		}
		log = s.doc.EventLogDigest
	}
	switch {
	case len(s.doc.Facts) > 0:
		facts, err = evidence.FactsDigest(s.doc.Facts)
	case len(s.doc.FactsDigest) > 0:
		if s.exp.Facts == nil {
			return nil, nil, fmt.Errorf("%w: the facts were left out", ErrResume)
		}
		facts = s.doc.FactsDigest
	}
	return log, facts, err
}

// bootKey stands for everything that levels 1 to 4 depend on, besides the modules.
func (s *session) bootKey() digest {
	h := sha256.New()
	fmt.Fprintf(h, "%x %x %v %v %d ", s.log, s.facts, s.authentic.quote.Enrolled, s.authentic.quote.KeyWithoutAttributes, s.v.exceptionsAt(s.exp.Now))
	for i := range s.authentic.banks {
		b := &s.authentic.banks[i]
		fmt.Fprintf(h, "%v", b.Alg)
		for n, value := range b.Values {
			if n != imaPCR && value != nil {
				h.Write([]byte{byte(n)})
				h.Write(value)
			}
		}
	}
	fmt.Fprintf(h, "%q", s.exp.DiskKeys.ID())
	if !s.authentic.quote.Enrolled {
		for _, c := range s.doc.EKCerts {
			sum := sha256.Sum256(c)
			h.Write(sum[:])
		}
	}
	return digest(h.Sum(nil))
}

func (s *session) verdictKey(boot digest) digest {
	h := sha256.New()
	h.Write(boot[:])
	h.Write(s.list.state)
	h.Write([]byte(s.list.err))
	if t := &s.tag; t.State != claims.TagNone {
		fmt.Fprintf(h, "\x00%s\x00%s\x00%s\x00%s", t.State, assettag.Text(t.Tags), t.Expected, t.Observed)
	}
	s.addAudit(h)
	s.addCompliance(h)
	if d := s.detections; len(d) > 0 {
		fmt.Fprintf(h, "\x00detections\x00%s", d.Text())
	}
	return digest(h.Sum(nil))
}

// exceptionsAt counts the exceptions that have not ended: a verdict is not kept beyond the end of one.
func (v *Verifier) exceptionsAt(now time.Time) int {
	n := 0
	for _, e := range v.policy.Spec.Exceptions {
		if e.Until == nil || now.Before(e.Until.Time) {
			n++
		}
	}
	return n
}

// intern returns one shared verdict for all that say the same: a fleet of equal machines has few. cost is what keeping it takes in bytes.
func (v *Verifier) intern(verdict *appraisal.Verdict) (shared *appraisal.Verdict, cost int) {
	b, err := json.Marshal(verdict)
	if err != nil {
		return verdict, keepRoom
	}
	key := digest(sha256.Sum256(b))
	if same, ok := v.texts.get(key); ok {
		return same, sharedCost
	}
	v.texts.put(key, verdict, len(b)+sharedCost)
	return verdict, len(b) + sharedCost
}

// sizeOf is about what levels take in bytes.
func sizeOf(levels []appraisal.Level) int {
	n := sharedCost
	for i := range levels {
		for j := range levels[i].Findings {
			f := &levels[i].Findings[j]
			n += sharedCost + len(f.Message) + len(f.Expected) + len(f.Observed) + len(f.Cause) + len(f.Remedy)
			if f.Event != nil {
				n += sharedCost + len(f.Event.Description)
			}
		}
	}
	return n
}

// judge draws the claims and appraises them.
func (s *session) judge(bootKey digest) (*appraisal.Verdict, error) {
	c, err := s.claims()
	if err != nil {
		return nil, err
	}
	in := &appraisal.Input{Claims: c, Runtime: s.list.runtime, RuntimeError: s.list.err, Policy: s.v.policy, References: s.v.refs, Now: s.exp.Now}
	boot, ok := s.v.levels.get(bootKey)
	if !ok {
		boot = appraisal.AppraiseBoot(in)
		s.v.levels.put(bootKey, boot, sizeOf(boot))
	}
	verdict := appraisal.AppraiseRuntime(in, boot)
	return &verdict, nil
}

func (s *session) checkpoint() *Checkpoint {
	q := &s.authentic.quote
	return &Checkpoint{Snapshot: s.v.snapshot, Clock: q.Clock, ResetCount: q.ResetCount, RestartCount: q.RestartCount, Firmware: q.FirmwareVersion,
		LogDigest: s.log, FactsDigest: s.facts, IMAOffset: s.list.offset, State: s.list.state}
}
