package authority

import (
	"net/http"

	"touchstone.dev/touchstone/internal/protocol"
)

// getTailoring hands the tailoring of the policy in force to a node, whose challenge named its digest.
func (a *Authority) getTailoring(w http.ResponseWriter, _ *http.Request, id identity) error {
	n, err := a.nodeOf(id)
	if err != nil {
		return err
	}
	if !n.limit.Allow() {
		return tooMany(w, "this node sends too much")
	}
	if t := a.snapshot.Load().Tailoring; t != nil {
		return answer(w, *t)
	}
	return refuse(http.StatusNotFound, "no-tailoring", "the policy has no tailoring", "", "scan by the profile as it is; see "+protocol.PathChallenge)
}
