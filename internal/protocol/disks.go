package protocol

import (
	"encoding/json"
	"time"
)

// Paths of the keys of disks, for operators. {act} is one of the Disk… words.
const (
	PathDisks      = "/v1/disks"              // GET -> DiskList
	PathDisk       = "/v1/disks/{node}"       // PUT DiskPolicy -> Disk: binds, or changes the policy; DELETE: destroys its keys
	PathDiskAct    = "/v1/disks/{node}/{act}" // POST DiskAct -> Disk
	PathDiskRotate = "/v1/disk-keys/{use}"    // POST -> DiskList: new signing or shared exchange key

	PathEscrows    = "/v1/escrows"                        // GET -> EscrowList
	PathEscrow     = "/v1/escrows/{node}/{volume}"        // PUT EscrowDeposit -> Escrow; DELETE
	PathEscrowStep = "/v1/escrows/{node}/{volume}/{step}" // POST EscrowStep -> Escrow; {step} is one of the Escrow… words
)

// What an operator does to the disks of a node.
const (
	DiskRevoke   = "revoke"   // refuse every recovery
	DiskUnrevoke = "unrevoke" // take that back
	DiskRotate   = "rotate"   // a new exchange key; the old one still recovers
	DiskApprove  = "approve"  // let one recovery through
	DiskMaintain = "maintain" // let all through for a while; 0 seconds end it
)

// Keys that all nodes share, in PathDiskRotate.
const (
	DiskSigning = "signing"
	DiskShared  = "shared"
)

// DiskPolicy says what recovery for a node hangs on; docs/disks.md explains the fields.
type DiskPolicy struct {
	Mode       string          `json:"mode"` // node or attested
	Conditions json.RawMessage `json:"conditions,omitempty"`
	Uses       int             `json:"uses,omitempty"`
	Lease      string          `json:"lease,omitempty"`
	Boot       string          `json:"boot,omitempty"`
	AnySource  bool            `json:"anySource,omitempty"`
	// IgnoreLatch releases also after the TPM said that the disks of this boot are open.
	IgnoreLatch bool `json:"ignoreLatch,omitempty"`
}

// DiskAnswer tells a node whether a recovery from where it attested would be released now.
type DiskAnswer struct {
	Open     bool          `json:"open"`
	Missing  []string      `json:"missing,omitempty"`  // why not
	Findings []DiskFinding `json:"findings,omitempty"` // of levels that do not hold
}

// DiskFinding is what was found on the boot of a node, and what to do about it.
type DiskFinding struct {
	Level   int    `json:"level"`
	Rule    string `json:"rule"`
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`
}

// DiskAct goes with an act.
type DiskAct struct {
	Reason  string `json:"reason,omitempty"`
	Seconds int64  `json:"seconds,omitempty"` // how long an approval waits, or a window stays open
	Source  string `json:"source,omitempty"`  // approve only what this address asks
}

// Disk is the disks of one node: how they are bound and whether they would open now.
type Disk struct {
	Node   string     `json:"node"`
	Policy DiskPolicy `json:"policy"`
	// Ready is whether a recovery would be released now, to where the node attested from last. Why says by what, or why not.
	Ready   bool      `json:"ready"`
	Why     string    `json:"why"`
	Revoked bool      `json:"revoked,omitempty"`
	Keys    []DiskKey `json:"keys"` // the newest first
	// Rebind is whether a disk may still hang on a key that is rotated.
	Rebind           bool      `json:"rebind,omitempty"`
	Last             *DiskLast `json:"last,omitempty"`
	BindUntil        time.Time `json:"bindUntil,omitzero"`        // until then clevis may try what it binds
	MaintenanceUntil time.Time `json:"maintenanceUntil,omitzero"` // everything is let through
	ApprovedUntil    time.Time `json:"approvedUntil,omitzero"`    // one recovery is
	// Volumes are those of the node; nil when it is not enrolled.
	Volumes *NodeVolumes `json:"volumes,omitempty"`
}

// DiskLast is what became of the recovery that was asked for last.
type DiskLast struct {
	At       time.Time `json:"at"`
	Released bool      `json:"released"`
	Reason   string    `json:"reason"`
	Source   string    `json:"source,omitempty"`
}

// DiskKey is an exchange key.
type DiskKey struct {
	Thumbprint string       `json:"thumbprint"`
	Created    time.Time    `json:"created"`
	Rotated    time.Time    `json:"rotated,omitzero"`
	Imported   bool         `json:"imported,omitempty"`
	Clients    []DiskClient `json:"clients,omitempty"` // who recovered with it, the last first
}

// DiskClient is a node, or, of a shared key, an address.
type DiskClient struct {
	Client string    `json:"client"`
	Last   time.Time `json:"last"`
	Count  int64     `json:"count"`
}

// DiskList answers PathDisks.
type DiskList struct {
	URL     string    `json:"url,omitempty"` // where clevis finds this AIAS; empty when it does not listen for it
	Open    bool      `json:"open"`          // whether shared keys are answered for
	Signers []string  `json:"signers"`       // thumbprints for clevis to trust
	Shared  []DiskKey `json:"shared,omitempty"`
	Nodes   []Disk    `json:"nodes"`
}

// Steps to a passphrase in escrow, in their order: it takes two operators.
const (
	EscrowAsk     = "ask"     // with a reason
	EscrowConfirm = "confirm" // another operator
	EscrowTake    = "take"    // who asked
	EscrowCancel  = "cancel"
)

// EscrowDeposit is a recovery passphrase for AIAS to keep.
type EscrowDeposit struct {
	Passphrase []byte `json:"passphrase"`
}

// EscrowStep goes with a step.
type EscrowStep struct {
	Reason string `json:"reason,omitempty"`
}

// Escrow is a passphrase that AIAS keeps.
type Escrow struct {
	Node      string    `json:"node"`
	Volume    string    `json:"volume"`
	Deposited time.Time `json:"deposited"`
	By        string    `json:"by"`
	// AskedBy, Reason, Until and ConfirmedBy are of a request that still counts.
	AskedBy     string    `json:"askedBy,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	Until       time.Time `json:"until,omitzero"`
	ConfirmedBy string    `json:"confirmedBy,omitempty"`
	// Taken is when somebody was given it last, TakenBy who: somebody knows it since then.
	Taken   time.Time `json:"taken,omitzero"`
	TakenBy string    `json:"takenBy,omitempty"`
	// Passphrase answers EscrowTake, and nothing else.
	Passphrase []byte `json:"passphrase,omitempty"`
}

// EscrowList answers PathEscrows.
type EscrowList struct {
	Escrows []Escrow `json:"escrows"`
}
