package nbde

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"touchstone.dev/touchstone/internal/release"
	"touchstone.dev/touchstone/internal/tpm"
)

// Mode says what recovery for a node hangs on.
type Mode string

// The modes.
const (
	// ModeNode answers whoever uses the node's prefix while the node is not revoked and its last verdict meets the conditions, when there are some.
	ModeNode Mode = "node"
	// ModeAttested answers only after the node attested in this boot, to the address that it attested from.
	ModeAttested Mode = "attested"
)

// Bounds and defaults of what an operator may set.
const (
	MaxUses     = 1000
	MaxLease    = time.Hour
	MaxApproval = 7 * 24 * time.Hour
	MaxWindow   = 31 * 24 * time.Hour

	defaultUses      = 8
	defaultLease     = 2 * time.Minute
	defaultBoot      = 10 * time.Minute
	defaultBinding   = 15 * time.Minute
	defaultLastKnown = 24 * time.Hour // ModeNode: age of the last verdict, when the conditions name none
)

// Policy is what an operator sets for a node. What is left out is the default.
type Policy struct {
	Mode Mode `json:"mode"`
	// Conditions that the node's verdict must meet. ModeNode asks them of the last verdict, which may have expired while the node is off: its age is
	// bound by maxResultAge, 24h when that is not set; without conditions it asks nothing. ModeAttested asks them of the fresh one, all five
	// levels when none are set.
	Conditions *release.Conditions `json:"conditions,omitempty"`
	// Uses is how many recoveries one boot gets (ModeAttested), Lease how long after an attestation, Boot how long after the first one in a boot.
	Uses  int              `json:"uses,omitempty"`
	Lease release.Duration `json:"lease,omitempty"`
	Boot  release.Duration `json:"boot,omitempty"`
	// AnySource lets recoveries come from another address than the attestation, for nodes behind address translation.
	AnySource bool `json:"anySource,omitempty"`
	// IgnoreLatch releases also after the TPM said that the disks of this boot are open: for data disks that open after the root disk.
	IgnoreLatch bool `json:"ignoreLatch,omitempty"`
}

// Validate says what cannot be meant.
func (p *Policy) Validate() error {
	if p.Mode != ModeNode && p.Mode != ModeAttested {
		return fmt.Errorf("mode %.20q: want %s or %s", p.Mode, ModeNode, ModeAttested)
	}
	if p.Uses < 0 || p.Uses > MaxUses {
		return fmt.Errorf("uses %d: want at most %d", p.Uses, MaxUses)
	}
	for _, d := range []struct {
		name string
		d    release.Duration
	}{{"lease", p.Lease}, {"boot", p.Boot}} {
		if d.d < 0 || time.Duration(d.d) > MaxLease {
			return fmt.Errorf("%s %s: want at most %s", d.name, time.Duration(d.d), MaxLease)
		}
	}
	if p.Mode == ModeNode && (p.Uses != 0 || p.Lease != 0 || p.Boot != 0 || p.AnySource || p.IgnoreLatch) {
		return fmt.Errorf("uses, lease, boot, anySource and ignoreLatch are of mode %s", ModeAttested)
	}
	if p.Conditions != nil {
		return p.Conditions.Validate()
	}
	return nil
}

// Revocation says that nothing is recovered for a node.
type Revocation struct {
	At     time.Time `json:"at"`
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
}

// Window is a time in which an operator lets recoveries through that the policy would refuse.
type Window struct {
	From   time.Time `json:"from"`
	Until  time.Time `json:"until"`
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
}

// Approval lets one recovery through, once.
type Approval struct {
	At     time.Time  `json:"at"`
	Until  time.Time  `json:"until"`
	By     string     `json:"by"`
	Reason string     `json:"reason,omitempty"`
	Source netip.Addr `json:"source,omitzero"` // only to this address
}

// Session is one boot of a node, as the reset counter of its TPM tells it.
type Session struct {
	ResetCount uint32     `json:"resetCount"`
	Began      time.Time  `json:"began"`             // first attestation in it
	Attested   time.Time  `json:"attested,omitzero"` // last one
	Source     netip.Addr `json:"source,omitzero"`   // where that came from
	Used       int        `json:"used,omitempty"`    // recoveries in it
	// Latch is what the TPM said last of PCR 15. Closed stays closed: only another boot opens it.
	Latch tpm.LatchState `json:"latch,omitempty"`
}

// Last is what became of the last recovery that was asked for.
type Last struct {
	At       time.Time  `json:"at"`
	Released bool       `json:"released"`
	Reason   string     `json:"reason"` // by what it was released, or why not
	Source   netip.Addr `json:"source,omitzero"`
	Key      string     `json:"key,omitempty"`
}

// Record is all that is known of the disks of a node. It is kept as JSON.
type Record struct {
	Node        string      `json:"node"`
	Policy      Policy      `json:"policy"`
	Created     time.Time   `json:"created"`
	Revoked     *Revocation `json:"revoked,omitempty"`
	Maintenance *Window     `json:"maintenance,omitempty"`
	Approval    *Approval   `json:"approval,omitempty"`
	// BindUntil lets clevis try what it binds, also when the boot is long over: the node must attest and meet its conditions all the same.
	BindUntil time.Time `json:"bindUntil,omitzero"`
	Session   Session   `json:"session,omitzero"`
	Last      *Last     `json:"last,omitempty"`
}

func parseRecord(b []byte) (*Record, error) {
	r := &Record{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, err
	}
	if r.Node == "" {
		return nil, errors.New("no node in it")
	}
	return r, r.Policy.Validate()
}

// or returns d, or the default when it is not set.
func or(d release.Duration, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return time.Duration(d)
}
