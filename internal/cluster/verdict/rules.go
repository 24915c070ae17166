package verdict

import (
	"fmt"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/protocol"
)

// Skew is how far in the future a result may have been issued, as in package result.
const Skew = time.Minute

// validity are the rules that a result must pass to count at all, in order: the first that fails is the reason.
var validity = []func(*Input) (code, reason string){
	enrolled, present, fresh, sameName, sameMachine, sameBoot, sameKey, sinceCreation, notWithdrawn,
}

// enrolled: AIAS knows the node.
func enrolled(in *Input) (string, string) {
	if in.Said.Removed {
		return CodeNotEnrolled, "the node is not enrolled with AIAS: start trust-agent on it"
	}
	return "", ""
}

// present: a result came that could be taken.
func present(in *Input) (string, string) {
	switch s := &in.Said; {
	case s.Result != nil:
		return "", ""
	case s.Expired:
		return CodeExpired, firstOf(s.Reason, s.Problem)
	case s.Problem != "":
		return CodeRefused, "the result of AIAS is refused: " + s.Problem
	}
	return CodeNoResult, firstOf(in.Said.Reason, "AIAS has no result for the node: is trust-agent running on it?")
}

// fresh: the result counts now. It was checked when it came, and time has passed.
func fresh(in *Input) (string, string) {
	r := in.Said.Result
	if !in.Now.Before(r.Expires) {
		return CodeExpired, firstOf(in.Said.Problem, "the last result ended at "+r.Expires.UTC().Format(time.RFC3339)+" and no newer one came")
	}
	if r.Issued.After(in.Now.Add(Skew)) {
		return CodeRefused, "the result was issued in the future: check the clocks of AIAS and of the controller"
	}
	return "", ""
}

// sameName: the result is about a node of this name.
func sameName(in *Input) (string, string) {
	if in.Node.Name == "" || in.Said.Result.Node != in.Node.Name {
		return CodeOtherNode, fmt.Sprintf("the result is about node %q", in.Said.Result.Node)
	}
	return "", ""
}

// sameMachine: agent and kubelet tell the same SMBIOS UUID.
func sameMachine(in *Input) (string, string) {
	agent, kubelet := in.Said.Result.Machine.SystemUUID, in.Node.SystemUUID
	switch {
	case agent == "" || kubelet == "":
		if in.AllowMissingUUID {
			return "", ""
		}
		return CodeNoMachine, "no system UUID from " + missing(agent, kubelet) + ": is it allowed to read /sys/class/dmi/id/product_uuid? Machines without one need --allow-missing-system-uuid"
	case !strings.EqualFold(agent, kubelet):
		return CodeOtherUUID, fmt.Sprintf("the result is about machine %s, the node object says %s: two machines with one name?", agent, kubelet)
	}
	return "", ""
}

func missing(agent, kubelet string) string {
	switch {
	case agent != "":
		return "kubelet"
	case kubelet != "":
		return "trust-agent"
	}
	return "trust-agent and kubelet"
}

// sameBoot: the result and the node object are of one boot.
func sameBoot(in *Input) (string, string) {
	agent, kubelet := in.Said.Result.Machine.BootID, in.Node.BootID
	switch {
	case agent == "" || kubelet == "":
		return CodeNoMachine, "no boot ID from " + missing(agent, kubelet)
	case agent != kubelet:
		return CodeRebooted, "the node object and the last result are of different boots: the node has rebooted and has still to attest, or to report to Kubernetes"
	}
	return "", ""
}

// sameKey: a node object keeps the TPM that it was first trusted with.
func sameKey(in *Input) (string, string) {
	r, b := in.Said.Result, in.Bound
	if r.AKName == "" || b != nil && b.UID == in.Node.UID && b.AKName != r.AKName {
		return CodeOtherKey, "the result is signed for another TPM key than this node had: if that is right, delete its NodeTrust"
	}
	return "", ""
}

// sinceCreation: a node that was deleted and made again proves itself again.
func sinceCreation(in *Input) (string, string) {
	if b := in.Bound; b != nil && b.UID != in.Node.UID && !in.Said.Result.Issued.After(in.Node.Created) {
		return CodeRecreated, "the node object was made after the last result: waiting for the next one"
	}
	return "", ""
}

// notWithdrawn: AIAS still stands by a result that says trusted.
func notWithdrawn(in *Input) (string, string) {
	if in.Said.Result.Trusted && in.Said.Trust != protocol.Trusted {
		return CodeWithdrawn, firstOf(in.Said.Reason, "AIAS does not stand by the last result any more")
	}
	return "", ""
}

// why is the reason of a result that says untrusted.
func why(in *Input) string {
	if in.Said.Reason != "" {
		return in.Said.Reason
	}
	for _, l := range in.Said.Result.Levels {
		if l.Status == appraisal.Fail || l.Status == appraisal.Unknown {
			return strings.TrimSuffix(fmt.Sprintf("level %d (%s): %s: %s", l.Level, l.Name, l.Status, l.Reason), ": ")
		}
	}
	return "AIAS does not trust the node"
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
