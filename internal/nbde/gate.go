package nbde

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/release"
	"touchstone.dev/touchstone/internal/tpm"
)

// Grant says by what a recovery is released.
type Grant string

// The grants.
const (
	GrantOpen        Grant = "keys that all share"
	GrantNode        Grant = "policy of the node"
	GrantLease       Grant = "attested in this boot"
	GrantBinding     Grant = "binding"
	GrantMaintenance Grant = "maintenance window"
	GrantApproval    Grant = "approval of an operator"
)

// Decide says whether a recovery for the node of r is released at time now, by what, and if not, why not. It is pure; the caller takes note of
// the use. standing is what is known of the node: for ModeNode its last verdict, for ModeAttested the present one.
//
// An approval is only used when nothing else releases, so that a boot which needs none does not use it up. Nothing but un-revoking helps a
// node that is revoked.
func Decide(r *Record, standing release.Node, from netip.Addr, now time.Time) (Grant, []string) {
	if v := r.Revoked; v != nil {
		return "", []string{text("the disks of the node are revoked by "+v.By, v.Reason)}
	}
	if w := r.Maintenance; w != nil && !now.Before(w.From) && now.Before(w.Until) {
		return GrantMaintenance, nil
	}
	grant, missing := r.byPolicy(standing, from, now)
	if len(missing) == 0 {
		return grant, nil
	}
	if a := r.Approval; a != nil && now.Before(a.Until) {
		if !a.Source.IsValid() || a.Source == from {
			return GrantApproval, nil
		}
		missing = append(missing, fmt.Sprintf("the approval is for %s, not %s", a.Source, from))
	}
	return "", missing
}

func text(what, reason string) string {
	if reason == "" {
		return what
	}
	return what + ": " + reason
}

func (r *Record) byPolicy(standing release.Node, from netip.Addr, now time.Time) (Grant, []string) {
	switch r.Policy.Mode {
	case ModeNode:
		return GrantNode, r.lastKnown(standing, now)
	case ModeAttested:
		grant, missing := r.lease(from, now)
		var c release.Conditions
		if r.Policy.Conditions != nil {
			c = *r.Policy.Conditions
		}
		return grant, append(missing, release.Meets(&c, standing, now).Missing...)
	}
	return "", []string{fmt.Sprintf("mode %q is unknown", r.Policy.Mode)}
}

// lastKnown asks the conditions of the last verdict. Its expiry does not count, as the node could not renew it before its disk is open.
func (r *Record) lastKnown(standing release.Node, now time.Time) []string {
	if r.Policy.Conditions == nil {
		return nil
	}
	c := *r.Policy.Conditions
	if c.MaxResultAge == nil {
		age := release.Duration(defaultLastKnown)
		c.MaxResultAge = &age
	}
	standing.Expires = standing.Issued.Add(time.Duration(*c.MaxResultAge))
	return release.Meets(&c, standing, now).Missing
}

// lease says whether the session of the node has a recovery left for an address.
func (r *Record) lease(from netip.Addr, now time.Time) (Grant, []string) {
	s, p := &r.Session, &r.Policy
	if s.Attested.IsZero() {
		return "", []string{"the node has not attested since its disks were bound"}
	}
	var missing []string
	if !p.AnySource && s.Source != from {
		missing = append(missing, fmt.Sprintf("asked from %s, and the node attested from %s", from, s.Source))
	}
	binding := now.Before(r.BindUntil)
	if end := s.Attested.Add(or(p.Lease, defaultLease)); !binding && !now.Before(end) {
		missing = append(missing, "the last attestation is from "+stamp(s.Attested)+", too long ago")
	}
	if end := s.Began.Add(or(p.Boot, defaultBoot)); !binding && !now.Before(end) {
		missing = append(missing, "the node has been up since "+stamp(s.Began)+": its disks are recovered while it boots")
	}
	if !binding && !p.IgnoreLatch && s.Latch != tpm.LatchOpen {
		missing = append(missing, latchText(s.Latch))
	}
	if uses := r.uses(); !binding && s.Used >= uses {
		missing = append(missing, fmt.Sprintf("the %d recoveries of this boot are used up", uses))
	}
	if binding {
		return GrantBinding, missing
	}
	return GrantLease, missing
}

// attested notes that the node attested, in a boot that the reset counter of its TPM names, and reports whether that has to be written down.
// What has to be written down is a boot that begins, and a latch that closes.
func (r *Record) attested(e *Attestation, now time.Time) (write bool) {
	s := &r.Session
	if write = s.Began.IsZero() || s.ResetCount != e.ResetCount; write {
		*s = Session{ResetCount: e.ResetCount, Began: now, Latch: e.Latch}
	}
	s.Attested, s.Source = now, e.Source
	if s.Latch == tpm.LatchClosed || s.Latch == e.Latch {
		return write
	}
	s.Latch = e.Latch
	return true
}

// used takes note of a release.
func (r *Record) used(g Grant) {
	switch g {
	case GrantApproval:
		r.Approval = nil
	case GrantLease:
		r.Session.Used++
	}
}

// uses is how many recoveries one boot gets.
func (r *Record) uses() int {
	if r.Policy.Uses == 0 {
		return defaultUses
	}
	return r.Policy.Uses
}

// latchText says why a boot whose latch is not open gets no key.
func latchText(l tpm.LatchState) string {
	switch l {
	case tpm.LatchClosed:
		return "PCR 15 says that the disks of this boot are open already: only a reboot takes that back"
	case tpm.LatchForeign:
		return "PCR 15 was extended by something else than the trust agent, so that it cannot say whether the disks of this boot are open already (ignoreLatch)"
	}
	if l == "" {
		l = tpm.LatchUnquoted
	}
	return "the quote does not say whether the disks of this boot are open already: PCR 15 is " + string(l)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// reasons joins what is missing.
func reasons(missing []string) string { return strings.Join(missing, "; ") }
