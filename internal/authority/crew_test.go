package authority

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestCrew(t *testing.T) {
	c := newCrew()
	var sum atomic.Int64
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			own := 0
			c.do(func() { own = i })
			sum.Add(int64(own))
		})
	}
	wg.Wait()
	if got := sum.Load(); got != 4950 {
		t.Errorf("crew: 0 to 99 done by it: got a sum of %d, want 4950", got)
	}
}

// A panic reaches the one who asked, says where it happened, and leaves the crew at work.
func TestCrewPanic(t *testing.T) {
	c := newCrew()
	caught := func() (p any) {
		defer func() { p = recover() }()
		c.do(func() { panic("broken") })
		return nil
	}()
	if text := fmt.Sprint(caught); !strings.HasPrefix(text, "broken\n") || !strings.Contains(text, "TestCrewPanic") {
		t.Errorf("panic in a crew: got %q, want \"broken\" and its stack", text)
	}
	done := false
	c.do(func() { done = true })
	if !done {
		t.Error("crew after a panic: work was not done")
	}
}
