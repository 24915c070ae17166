package verifier

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/evidence"
)

// stating is evidence of a worker whose quote covers a statement.
func (w *worker) stating(t testing.TB, s *evidence.Statement) *evidence.Document {
	t.Helper()
	b, err := evidence.EncodeStatement(s)
	if err != nil {
		t.Fatal(err)
	}
	d := w.quoting(evidence.Qualify(nonce, b))
	d.Statement = b
	return d
}

func auditStatement() *evidence.Statement {
	return &evidence.Statement{Audit: &evidence.AuditStatement{Chain: make([]byte, 16), Seq: 9, Head: make([]byte, 32), Enabled: 1, PID: 3, Drift: "one rule is gone"}}
}

func TestStatement(t *testing.T) {
	v, w := testVerifier(t), newWorker(t)
	exp := w.expectation()
	exp.Audit = func(q *claims.Quote, s *evidence.AuditStatement) claims.Audit {
		if q.ResetCount == 0 {
			t.Errorf("the quote that covers the statement is missing: %+v", q)
		}
		if s == nil {
			return claims.Audit{State: claims.AuditStopped}
		}
		return claims.Audit{State: claims.AuditForked, Observed: "other"}
	}
	out := appraise(t, v, w.stating(t, auditStatement()), exp)
	f := find(out.Verdict, "runtime.audit-chain")
	if !out.Authentic || out.Statement == nil || out.Statement.Audit.Seq != 9 || f == nil || !strings.Contains(f.Message, "rewritten") {
		t.Errorf("a statement that AIAS contradicts: authentic %v, %+v, finding %+v", out.Authentic, out.Statement, f)
	}
	out = appraise(t, v, w.evidence(), exp)
	if f := find(out.Verdict, "runtime.audit-chain"); f == nil || !strings.Contains(f.Message, "any more") {
		t.Errorf("no statement where there was one before: finding %+v", f)
	}
	exp.Audit = nil
	if f := find(appraise(t, v, w.evidence(), exp).Verdict, "runtime.audit-chain"); f != nil {
		t.Errorf("no statement, and none expected: finding %+v", f)
	}
}

// TestStatementIsSigned: a statement that was altered, added or taken away costs authenticity.
func TestStatementIsSigned(t *testing.T) {
	v, w := testVerifier(t), newWorker(t)
	good := w.stating(t, auditStatement())
	other := auditStatement()
	other.Audit.Seq = 8
	altered := *good
	altered.Statement, _ = evidence.EncodeStatement(other)
	without := *good
	without.Statement = nil
	added := *w.evidence()
	added.Statement = good.Statement
	for name, d := range map[string]*evidence.Document{"altered": &altered, "taken away": &without, "added": &added} {
		if out := appraise(t, v, d, w.expectation()); out.Authentic || out.Verdict.Trusted {
			t.Errorf("%s: authentic %v, trusted %v; want neither", name, out.Authentic, out.Verdict.Trusted)
		}
	}
	broken := w.quoting(evidence.Qualify(nonce, []byte{0xff}))
	broken.Statement = []byte{0xff}
	if _, err := v.Appraise(broken, w.expectation()); !errors.Is(err, ErrMalformed) {
		t.Errorf("Appraise() of a broken statement: got %v, want ErrMalformed", err)
	}
	if bytes.Equal(good.Quotes[0].Message, w.evidence().Quotes[0].Message) {
		t.Error("the quote does not depend on the statement")
	}
}
