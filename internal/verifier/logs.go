package verifier

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/ima"
	"touchstone.dev/touchstone/internal/tpm"
)

// imaPCR is the PCR of the IMA list.
const imaPCR = ima.PCR

// list is the IMA list after this attestation. Without runtime there is none that could be verified.
type list struct {
	runtime *appraisal.Runtime
	err     string // why a list that came along or must be there could not be verified
	offset  uint64
	state   []byte // encoded progress
}

// progress is what Checkpoint.State holds.
type progress struct {
	IMA     ima.State         `cbor:"1,keyasint"`
	Runtime appraisal.Runtime `cbor:"2,keyasint"`
}

var (
	stateEncoder = must(cbor.CoreDetEncOptions().EncMode())
	stateDecoder = must(cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // options are constants
	}
	return v
}

// replayList verifies the IMA list from the checkpoint or from its start, and judges the new entries. The error is ErrResume.
func (s *session) replayList() error {
	quoted := make(map[tpm.Alg][]byte)
	zero := true
	for i := range s.authentic.banks {
		b := &s.authentic.banks[i]
		if v := b.Values[imaPCR]; v != nil {
			quoted[b.Alg] = v
			zero = zero && len(bytes.Trim(v, "\x00")) == 0
		}
	}
	p, err := s.start()
	if err != nil {
		return err
	}
	switch {
	case len(quoted) == 0:
		s.list.err = "PCR 10 was not quoted"
	case zero && len(s.doc.IMA) == 0 && p.IMA.Entries == 0:
		// IMA is off, and provably so.
	default:
		s.replay(p, quoted)
	}
	return nil
}

// start returns where the list goes on: at the checkpoint of the same boot, or at the beginning.
func (s *session) start() (*progress, error) {
	p := new(progress)
	if s.doc.IMAOffset == 0 {
		return p, nil
	}
	c := s.exp.Checkpoint
	switch {
	case c == nil || len(c.State) == 0:
		return nil, fmt.Errorf("%w: there is no checkpoint", ErrResume)
	case c.Snapshot != s.v.snapshot:
		return nil, fmt.Errorf("%w: policy or references changed", ErrResume)
	case c.ResetCount != s.authentic.quote.ResetCount:
		return nil, fmt.Errorf("%w: the worker rebooted", ErrResume)
	case c.IMAOffset != s.doc.IMAOffset:
		return nil, fmt.Errorf("%w: the IMA list goes on at byte %d, verified is %d", ErrResume, s.doc.IMAOffset, c.IMAOffset)
	}
	if err := stateDecoder.Unmarshal(c.State, p); err != nil {
		return nil, fmt.Errorf("%w: checkpoint: %w", ErrResume, err)
	}
	return p, nil
}

func (s *session) replay(p *progress, quoted map[tpm.Alg][]byte) {
	res, err := ima.Verify(s.doc.IMA, p.IMA, quoted)
	if err != nil {
		s.list.err = err.Error()
		return
	}
	if res.Matched == 0 && p.IMA.Entries > 0 {
		s.list = list{runtime: &p.Runtime, offset: p.IMA.Offset, state: s.exp.Checkpoint.State}
		return
	}
	if p.IMA.Entries == 0 && res.Matched > 0 {
		banks := make(map[tpm.Alg]*tpm.Bank)
		for i := range s.authentic.banks {
			banks[s.authentic.banks[i].Alg] = &s.authentic.banks[i]
		}
		if err := res.State.CheckBootAggregate(banks); err != nil {
			p.Runtime.AggregateError = err.Error()
			p.Runtime.AggregateUnknown = errors.Is(err, ima.ErrNotComputable)
		}
	}
	res.Each(func(some []ima.Entry) { p.Runtime.Observe(some, s.v.policy, s.v.refs) })
	p.IMA = res.State
	state, err := stateEncoder.Marshal(p)
	if err != nil {
		s.list.err = err.Error()
		return
	}
	s.list = list{runtime: &p.Runtime, offset: res.State.Offset, state: state}
}

// claims gathers everything that the rules look at.
func (s *session) claims() (*claims.Claims, error) {
	c := &claims.Claims{Quote: s.authentic.quote, Bank: s.bank.Alg, Values: s.bank, AssetTag: s.tag, DiskKeys: s.exp.DiskKeys, Detections: s.detections, Audit: s.audit, Compliance: s.compliance}
	var err error
	if c.Boot, c.BootError, err = s.boot(); err != nil {
		return nil, err
	}
	c.Compare(s.authentic.banks)
	raw := s.doc.Facts
	if len(raw) == 0 && len(s.facts) > 0 {
		if raw, err = s.exp.Facts(s.facts); err != nil {
			return nil, err
		}
	}
	c.Facts = claims.ReadFacts(raw)
	if !c.Quote.Enrolled {
		c.Endorsement = s.endorsement()
	}
	return c, nil
}

// boot reads the firmware log, once for each log and bank.
func (s *session) boot() (*claims.Boot, string, error) {
	if s.log == nil {
		return nil, "none came along", nil
	}
	h := sha256.New()
	fmt.Fprintf(h, "%v ", s.bank.Alg)
	h.Write(s.log)
	key := digest(h.Sum(nil))
	if b, ok := s.v.boots.get(key); ok {
		return b, "", nil
	}
	raw := s.doc.EventLog
	if len(raw) == 0 {
		var err error
		if raw, err = s.exp.EventLog(s.log); err != nil {
			return nil, "", err
		}
	}
	b, err := claims.ReadBoot(bytes.Clone(raw), s.bank.Alg)
	if err != nil {
		return nil, err.Error(), nil //nolint:nilerr // an unreadable log is a finding, not an error
	}
	s.v.boots.put(key, b, parsedFactor*len(raw))
	return b, "", nil
}

// endorsement checks the EK certificate that came along with offline Evidence.
func (s *session) endorsement() claims.Endorsement {
	if len(s.doc.EKCerts) == 0 {
		return claims.Endorsement{}
	}
	e := claims.Endorsement{Offered: true}
	leaf, err := tpm.ParseEKCertificate(s.doc.EKCerts[0])
	if err != nil {
		e.Error = err.Error()
		return e
	}
	e.Subject, e.Issuer = leaf.Subject.String(), leaf.Issuer.String()
	between := append(s.v.refs.EKIntermediates()[:0:0], s.v.refs.EKIntermediates()...)
	for _, der := range s.doc.EKCerts[1:] {
		if c, err := tpm.ParseEKCertificate(der); err == nil {
			between = append(between, c)
		}
	}
	if err := tpm.VerifyEKChain(leaf, between, s.v.refs.EKRoots(), s.exp.Now); err != nil {
		e.Error = err.Error()
	}
	return e
}
