package authority

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"
)

// crewIdle is how long a goroutine of a crew waits for work before it ends.
const crewIdle = 10 * time.Second

// crew does work on goroutines that outlive it. Judging Evidence needs a deep stack. On the goroutine of a connection that stack is grown for
// each request, copied each time, and taken back by the next garbage collection; between requests thousands of connections hold what is left.
// A crew has as many deep stacks as work is done at the same time.
type crew struct{ work chan func() }

func newCrew() *crew { return &crew{work: make(chan func())} }

// do runs f and waits for it. A panic of f becomes one of the caller, with the place where it happened.
func (c *crew) do(f func()) {
	done := make(chan struct{})
	var panicked any
	g := func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				panicked = where(p)
			}
		}()
		f()
	}
	select {
	case c.work <- g:
	default:
		go c.stay(g)
	}
	<-done
	if panicked != nil {
		panic(panicked)
	}
}

// where is what a panic said, with the stack that it had; the one that net/http knows stays as it is.
func where(p any) any {
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		return p
	}
	return fmt.Sprintf("%v\n%s", p, debug.Stack())
}

// stay runs g, then what comes until nothing has come for a while.
func (c *crew) stay(g func()) {
	g()
	idle := time.NewTimer(crewIdle)
	defer idle.Stop()
	for {
		select {
		case g = <-c.work:
			g()
			idle.Reset(crewIdle)
		case <-idle.C:
			return
		}
	}
}
