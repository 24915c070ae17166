package authority

import (
	"time"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/release"
)

// standing is what AIAS knows of the node at time now, as the decision on a release takes it. Its age counts from the Evidence, not from when the
// result was signed last: a change of policy makes nothing younger.
func (n *node) standing(now time.Time) release.Node {
	n.mu.RLock()
	defer n.mu.RUnlock()
	switch {
	case n.gone:
		return release.Node{Why: "the node was removed"}
	case n.attested.IsZero():
		return release.Node{Why: "the node has not attested yet"}
	}
	s := n.current()
	if n.trust == protocol.Trusted && over(n.expires, now) {
		s.silent(n.expires)
	}
	r := release.Node{
		Valid: true, SoftwareTPM: n.software, Tags: s.tags, Issued: n.attested, Expires: n.expires,
		Levels: make(map[int32]string, len(s.levels)), Reasons: make(map[int32]string, len(s.levels)),
	}
	for _, l := range s.levels {
		r.Levels[int32(l.Level)], r.Reasons[int32(l.Level)] = l.Status, l.Reason
	}
	return r
}
