package verifier

import (
	"encoding/hex"
	"fmt"
	"hash"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/evidence"
)

// state reads the statement, which the quotes cover, and has it compared with the audit events and the compliance scan that are here.
func (s *session) state() error {
	var audit *evidence.AuditStatement
	if len(s.doc.Statement) > 0 {
		st, err := evidence.DecodeStatement(s.doc.Statement)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		s.statement, audit = st, st.Audit
	}
	s.compliance = s.exp.Compliance
	if s.compliance != nil {
		var stated map[string][]byte
		if s.statement != nil {
			stated = s.statement.Compliance
		}
		s.compliance = s.compliance.Compare(stated, s.exp.Challenged)
	}
	switch {
	case s.exp.Audit != nil:
		s.audit = s.exp.Audit(&s.authentic.quote, audit)
	case audit != nil:
		s.audit = claims.Audit{State: claims.AuditShown}
	}
	if s.exp.Detections != nil {
		s.detections = s.exp.Detections()
	}
	if audit == nil {
		return nil
	}
	a := &s.audit
	a.Stated, a.Enabled, a.PID, a.Lost, a.Drift, a.Problem = true, audit.Enabled, audit.PID, audit.Lost, audit.Drift, audit.Problem
	a.RulesDigest = hex.EncodeToString(audit.RulesDigest)
	if a.State == claims.AuditShown { // else it would make every verdict another one
		a.Observed = fmt.Sprintf("%d entries, head %x", audit.Seq, audit.Head)
	}
	return nil
}

// addAudit adds what the verdict depends on of auditing.
func (s *session) addAudit(h hash.Hash) {
	if s.exp.Audit != nil || s.statement != nil {
		fmt.Fprintf(h, "\x00audit %+v", s.audit)
	}
}
