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

// Limits bound recoveries a second, of one node prefix and of one address that uses shared keys, and how many may come at once.
type Limits struct {
	PerNode, PerAddress           float64
	PerNodeBurst, PerAddressBurst int
}

// DefaultLimits let clevis repeat every half second for several disks, and hundreds of machines boot behind one address.
func DefaultLimits() Limits {
	return Limits{PerNode: 20, PerNodeBurst: 60, PerAddress: 100, PerAddressBurst: 1000}
}

// maxLimiters bounds what is remembered: who asks from more addresses than that at a time is not held apart from the others.
const maxLimiters = 1 << 16

// limiter has a bucket for each prefix, and for each address that uses none.
type limiter struct {
	limits Limits
	mu     sync.Mutex
	young  map[any]*rate.Limiter
	old    map[any]*rate.Limiter // the generation before: a bucket that is still used moves on
}

func newLimiter(l Limits) *limiter { return &limiter{limits: l, young: map[any]*rate.Limiter{}} }

// allow takes a token. IPv6 addresses count by their /64, which one machine has all of.
func (l *limiter) allow(node string, source netip.Addr, now time.Time) bool {
	var key any = node
	every, burst := l.limits.PerNode, l.limits.PerNodeBurst
	if node == "" {
		every, burst = l.limits.PerAddress, l.limits.PerAddressBurst
		if source.Is6() {
			if p, err := source.Prefix(64); err == nil {
				source = p.Addr()
			}
		}
		key = source
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.young[key]
	if b == nil {
		if b = l.old[key]; b == nil {
			b = rate.NewLimiter(rate.Limit(every), burst)
		}
		if len(l.young) >= maxLimiters/2 {
			l.old, l.young = l.young, map[any]*rate.Limiter{}
		}
		l.young[key] = b
	}
	return b.AllowN(now, 1)
}
