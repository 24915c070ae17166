package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
)

// tpmTimeout bounds opening the TPM: making three keys on the slowest chips takes some tens of seconds.
const tpmTimeout = 3 * time.Minute

// errStuck means that the TPM or its driver does not answer. The call cannot be taken back: the process ends, and its
// supervisor starts it again.
var errStuck = errors.New("the TPM does not answer")

// guard runs fn, and gives up waiting for it after d or when ctx ends: calls into the TPM driver know no context.
func guard(ctx context.Context, d time.Duration, fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		// Whoever stops the agent may take the TPM away at once; give the running command a moment to end.
		select {
		case <-done: //nolint:errcheck // the context ended: that is what counts
		case <-time.After(2 * time.Second):
		}
		return ctx.Err()
	case <-timer.C:
		return fmt.Errorf("%w after %v", errStuck, d)
	}
}

// limit bounds one attestation or enrolment: up to four requests, each with its own timeout, and the TPM's work.
func (a *Agent) limit() time.Duration { return 4*time.Duration(a.cfg.Timeout) + tpmTimeout }

// keepFresh renews the client certificate when two thirds of its life are over, and goes on over a new connection. A renewal that
// fails is tried again at the next attestation: a third of the life time is left for it.
func (a *Agent) keepFresh(ctx context.Context, s *attester, id *Identity) (*Identity, error) {
	at, err := id.renewAt()
	if err != nil || a.now().Before(at) {
		return id, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.limit())
	defer cancel()
	csr, err := request(id.Node, s.tpm)
	if err != nil {
		return id, err
	}
	answer, err := s.link.Renew(ctx, &protocol.RenewRequest{CSR: csr})
	if err != nil {
		return id, err
	}
	fresh := *id
	fresh.Certificate = answer.Certificate
	if answer.CA != "" {
		fresh.CA = answer.CA
	}
	if _, err := fresh.chain(); err != nil {
		return id, err
	}
	link, err := a.dial(&fresh, s.tpm)
	if err != nil {
		return id, err
	}
	s.link.Close()
	s.link = link
	a.log.Info("client certificate renewed", "valid until", answer.Expires.Format(time.RFC3339))
	return &fresh, fresh.Save(a.cfg.StateDir)
}

// report logs an attestation, writes the status file and calls the observer.
func (a *Agent) report(r Report) {
	if r.Err == nil {
		a.log.Info("attested", "why", string(r.Trigger), "trusted", r.Attestation.Trusted, "levels", levelLine(r.Attestation.Levels),
			"took", r.Took.Round(time.Millisecond), "bytes", r.Bytes)
	}
	if a.cfg.StatusFile != "" {
		if err := newStatus(&a.cfg, r).Save(a.cfg.StatusFile); err != nil {
			a.log.Warn("the status file could not be written", "error", err)
		}
	}
	notify("STATUS=" + statusLine(r))
	if a.Observe != nil {
		a.Observe(r)
	}
}
