package node

import "touchstone.dev/touchstone/internal/cluster/board"

// Job is one step for a node. The steps are apart because many nodes may fall at once: closing costs the API server a fifth of what telling costs, and the last
// node must not take pods until all was told of the first; and before anything is removed from the first, the breaker must have seen the last.
type Job struct {
	Node string
	Step Step
}

// Step is what a job does.
type Step int

// Steps, in their order; each leads to the next.
const (
	Place   Step = iota // labels and taints, without NoExecute when other nodes fell, too: what may come to the node
	Execute             // NoExecute: what must leave it
	Tell                // NodeTrust, condition, event: they decide nothing
)

// Priorities of jobs. Among equal ones the first comes first.
const (
	Closing = 20   // a node is not trusted, or has lost a class: it must take no more pods
	Leaving = 15   // pods must leave a node that is closed
	Opening = 10   // a node has all that it ever had
	Looking = 0    // something may have changed: a newer result, a change of the object
	Telling = -200 // below what controller-runtime gives to objects that are there at the start (-100)
)

// Priority is that of a change on the board.
func Priority(e *board.Entry) int {
	if !e.Verdict.Trusted || len(e.Lost) > 0 {
		return Closing
	}
	return Opening
}
