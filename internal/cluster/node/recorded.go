package node

import (
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/verdict"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
)

// recordedTime is how long after the start what NodeTrusts say counts while AIAS has not been heard.
const recordedTime = 10 * time.Minute

// recorded is what AIAS said before this process began, as its NodeTrust has it: whoever takes over does not begin by mistrusting everything. It counts
// only until AIAS has told of all nodes, and only as long as it would have. Of the object only the signed result is believed, verified with keys of AIAS that were kept
// outside of it; what stands beside it can only lower.
func recorded(nt *v1alpha1.NodeTrust, keys func() ([]byte, error), now time.Time) verdict.Said {
	if nt == nil {
		return verdict.Said{Reason: "AIAS has not been heard yet"}
	}
	s := &nt.Status
	if !meta.IsStatusConditionTrue(s.Conditions, v1alpha1.ConditionBound) || s.Node == nil || s.Result == "" {
		return verdict.Said{Reason: s.Reason}
	}
	set, err := keys()
	if err != nil {
		return verdict.Said{Reason: fmt.Sprintf("AIAS has not been heard yet, and the recorded result cannot be verified without it: %v", err)}
	}
	r, err := result.Verify(s.Result, set, result.Expectation{Node: nt.Name, AKName: s.Node.AKName, Now: now})
	switch {
	case errors.Is(err, result.ErrExpired):
		return verdict.Said{Expired: true, Problem: bounded("AIAS has not been heard yet, and the recorded result " + err.Error())}
	case err != nil:
		return verdict.Said{Problem: bounded("the one recorded before this controller started: " + err.Error())}
	}
	said := verdict.Said{Result: r, Token: s.Result, Trust: protocol.Untrusted, Reason: s.Reason}
	if s.Trusted {
		said.Trust = protocol.Trusted
	}
	return said
}
