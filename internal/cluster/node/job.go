package node

import "touchstone.dev/touchstone/internal/cluster/board"

// Job is one thing to do for a node: to bring labels and taints of its object in line, which decide what may run there; or, each time after
// that, to tell of it in NodeTrust, condition and events, which decide nothing. They are apart because telling costs the API server five times
// as much as closing, and when many nodes fall the last one must not wait until everything was told of the first.
type Job struct {
	Node string
	Tell bool
}

// Priorities of jobs. Among equal ones the first comes first.
const (
	Closing = 20   // a node is not trusted, or has lost a class: it must take no more pods
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
