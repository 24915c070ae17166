package authority

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"syscall"
)

// File descriptors: a connection takes one, and when none is left neither database nor ledger can be written.
const (
	keptBack   = 256 // for database, ledger, references, and connections that AIAS opens itself
	leastConns = 64  // that are worth a start
)

// room is how many connections may be open together, on all listeners.
type room struct {
	max  int64
	open atomic.Int64
}

// newRoom finds out how many connections the limit of open files allows. It raises the soft limit as far as the hard one allows.
func newRoom(log *slog.Logger, wanted int64) (*room, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return nil, fmt.Errorf("read the limit of open files: %w", err)
	}
	if l.Cur < l.Max {
		raised := syscall.Rlimit{Cur: l.Max, Max: l.Max}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised); err == nil {
			l = raised
		}
	}
	return roomFor(log, l.Cur, wanted)
}

// roomFor is the room that a limit of open files leaves; wanted is what the configuration allows.
func roomFor(log *slog.Logger, limit uint64, wanted int64) (*room, error) {
	if limit < keptBack+leastConns {
		return nil, fmt.Errorf("%d files may be open at a time, and AIAS needs %d at least: raise the limit (LimitNOFILE in its systemd unit, ulimit -n)", limit, keptBack+leastConns)
	}
	r := &room{max: int64(min(limit-keptBack, 1<<40))} //nolint:gosec // bounded
	if r.max < wanted {
		log.Warn("the limit of open files allows fewer connections than limits.connections: raise it (LimitNOFILE in the systemd unit, ulimit -n)", "limit", limit, "connections", r.max, "configured", wanted)
	}
	return r, nil
}

// enter takes a place; false when there is none. A nil room has no end.
func (r *room) enter() bool {
	if r == nil {
		return true
	}
	if r.open.Add(1) <= r.max {
		return true
	}
	r.open.Add(-1)
	return false
}

func (r *room) leave() {
	if r != nil {
		r.open.Add(-1)
	}
}
