// Package verdict judges whether a node object of Kubernetes is trusted now: what AIAS said is about this very object, its machine, its
// boot and its TPM, it is fresh, and it says trusted. It is pure.
//
// Rules stand in a table, each a function that says why not. The zero value of everything is: not trusted.
package verdict

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/result"
)

// Said is what AIAS said last of a node.
type Said struct {
	// Result is the newest one whose signature, name and times were found right when it came; nil when there is none.
	Result *result.Result
	Token  string // Result as it was signed
	// Trust and Reason come with the stream and are not signed: they can only lower.
	Trust, Reason string
	Removed       bool   // the node is not enrolled
	Problem       string // why the last one that came was not taken
	Expired       bool   // the last one that came had expired
	Received      time.Time
}

// Node is what is known of a node object.
type Node struct {
	Name       string
	UID        types.UID
	Created    time.Time
	SystemUUID string
	BootID     string
}

// Input is all that a verdict depends on.
type Input struct {
	Node  Node
	Said  Said
	Bound *v1alpha1.NodeBinding // what was remembered with the last accepted result; nil when none was
	Now   time.Time
	// AllowMissingUUID accepts machines that have no SMBIOS UUID, or kubelets that do not tell it.
	AllowMissingUUID bool
}

// Verdict is the answer.
type Verdict struct {
	Trusted bool
	// Valid is whether the result is about this node and fresh, whatever it says: its levels and tags count.
	Valid bool
	// Silence is whether the node is not trusted only because nothing newer came: no word about the node itself.
	Silence bool
	Code    string // a word for conditions
	Reason  string // a line for people
	// Result is the one that Valid is about; nil when there is none.
	Result *result.Result
	Token  string
	// Bound is what to remember: the accepted result's machine and key, else what was remembered before.
	Bound *v1alpha1.NodeBinding
}

// Codes of verdicts.
const (
	CodeTrusted     = "Attested"
	CodeUntrusted   = "Untrusted"
	CodeNoResult    = "NoResult"
	CodeNotEnrolled = "NotEnrolled"
	CodeExpired     = "Expired"
	CodeRefused     = "ResultRefused"
	CodeOtherNode   = "OtherNode"
	CodeNoMachine   = "MachineUnknown"
	CodeOtherUUID   = "OtherMachine"
	CodeRebooted    = "Rebooted"
	CodeOtherKey    = "OtherTPM"
	CodeRecreated   = "NodeRecreated"
	CodeWithdrawn   = "NotRenewed"
)

// Judge applies the rules in their order.
func Judge(in Input) Verdict {
	v := Verdict{Bound: in.Bound}
	for _, rule := range validity {
		if code, reason := rule(&in); code != "" {
			v.Code, v.Reason = code, reason
			v.Silence = code == CodeExpired || code == CodeWithdrawn
			return v
		}
	}
	r := in.Said.Result
	v.Valid, v.Result, v.Token = true, r, in.Said.Token
	v.Bound = &v1alpha1.NodeBinding{UID: in.Node.UID, SystemUUID: r.Machine.SystemUUID, BootID: r.Machine.BootID, AKName: r.AKName}
	if !r.Trusted {
		v.Code, v.Reason = CodeUntrusted, why(&in)
		return v
	}
	v.Trusted, v.Code = true, CodeTrusted
	return v
}
