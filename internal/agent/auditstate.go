package agent

import (
	"strings"
	"time"
	"unicode"

	"touchstone.dev/touchstone/internal/evidence"
)

// trouble says why events cannot be read; "" when they can.
func (u *auditing) trouble(what string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.problem = plain(what)
}

// state is what the TPM signs of auditing: where the chain stands, and how auditing is.
func (u *auditing) state() *evidence.AuditStatement {
	timer := time.NewTimer(auditPatience)
	defer timer.Stop()
	select {
	case <-u.known:
	case <-timer.C:
	}
	at := u.spool.Head()
	s := &evidence.AuditStatement{Chain: at.Chain[:], Seq: at.Seq, Head: at.Head[:], BootID: u.bootID, Missing: u.spool.Missing().Events}
	u.mu.Lock()
	s.Drift, s.Problem = u.drift, u.problem
	if st := u.status; st != nil {
		s.Enabled, s.PID, s.Lost, s.RulesDigest = st.Enabled, st.PID, uint64(st.Lost), st.RulesDigest
	} else if s.Problem == "" {
		s.Problem = "the kernel's audit system does not answer"
	}
	u.mu.Unlock()
	return s
}

// plain makes a text fit for a statement: printable and short.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, " "))
	const most = 900
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
