package nbde

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"touchstone.dev/touchstone/internal/tpm"
)

// Attestation is what a Service is told of each one that was authentic.
type Attestation struct {
	Node       string
	Source     netip.Addr
	ResetCount uint32
	Latch      tpm.LatchState // of this boot, as quoted
}

// Limits bound recoveries a second, and how many may come at once: those that one address asks for under the prefix of one node, and those that one
// address asks for with shared keys.
type Limits struct {
	PerNode, PerAddress           float64
	PerNodeBurst, PerAddressBurst int
}

// maxLimiters bounds what is remembered: who asks from more addresses than that at a time is not held apart from the others.
const maxLimiters = 1 << 16

// asker is who has a bucket. Anybody can use the prefix of a node, so that a flood from elsewhere must not use up what the node itself has.
type asker struct {
	node   string
	source netip.Addr
}

// limiter has a bucket for each asker.
type limiter struct {
	limits Limits
	mu     sync.Mutex
	young  map[asker]*rate.Limiter
	old    map[asker]*rate.Limiter // the generation before: a bucket that is still used moves on
}

func newLimiter(l Limits) *limiter { return &limiter{limits: l, young: map[asker]*rate.Limiter{}} }

// allow takes a token. IPv6 addresses count by their /64, which one machine has all of.
func (l *limiter) allow(node string, source netip.Addr, now time.Time) bool {
	every, burst := l.limits.PerNode, l.limits.PerNodeBurst
	if node == "" {
		every, burst = l.limits.PerAddress, l.limits.PerAddressBurst
	}
	if source.Is6() {
		if p, err := source.Prefix(64); err == nil {
			source = p.Addr()
		}
	}
	key := asker{node, source}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.young[key]
	if b == nil {
		if b = l.old[key]; b == nil {
			b = rate.NewLimiter(rate.Limit(every), burst)
		}
		if len(l.young) >= maxLimiters/2 {
			l.old, l.young = l.young, map[asker]*rate.Limiter{}
		}
		l.young[key] = b
	}
	return b.AllowN(now, 1)
}
