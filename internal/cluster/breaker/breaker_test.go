package breaker

import (
	"fmt"
	"testing"
	"time"
)

// fleet is nodes that a test lets fall and return, with a clock of its own.
type fleet struct {
	t       *testing.T
	c       Config
	now     time.Time
	nodes   []Node
	state   State
	confirm string
	ids     int
}

func newFleet(t *testing.T, count int) *fleet {
	f := &fleet{t: t, c: Default(), now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	for i := range count {
		f.nodes = append(f.nodes, Node{Name: fmt.Sprintf("w%d", i), Since: f.now.Add(-time.Hour), Issued: f.now, Expires: f.now.Add(5 * time.Minute)})
	}
	return f
}

func (f *fleet) fall(from, to int, silence bool) {
	for i := from; i < to; i++ {
		f.nodes[i].FellAt, f.nodes[i].Silence = f.now, silence
	}
}

func (f *fleet) back(from, to int) {
	for i := from; i < to; i++ {
		f.nodes[i].FellAt, f.nodes[i].Since, f.nodes[i].Issued, f.nodes[i].Expires = time.Time{}, f.now, f.now, f.now.Add(5*time.Minute)
	}
}

// after lets time pass, decides, and compares: whether it is held, and how many nodes.
func (f *fleet) after(d time.Duration, held bool, nodes int) Outcome {
	f.t.Helper()
	f.now = f.now.Add(d)
	o := Decide(f.c, f.state, f.confirm, f.nodes, f.now, func() string { f.ids++; return fmt.Sprintf("hold%d", f.ids) })
	if o.Held != held || len(o.Nodes) != nodes {
		f.t.Fatalf("after %s: held %v with %d nodes (%s), want %v with %d", d, o.Held, len(o.Nodes), o.Message, held, nodes)
	}
	f.state = o.State
	return o
}

// renew is what all trusted nodes do.
func (f *fleet) renew() {
	for i := range f.nodes {
		if f.nodes[i].FellAt.IsZero() {
			f.nodes[i].Issued, f.nodes[i].Expires = f.now, f.now.Add(5*time.Minute)
		}
	}
}

// TestShares: how many may fall at once.
func TestShares(t *testing.T) {
	for _, tt := range []struct {
		nodes, fall int
		held        bool
	}{
		{1, 1, false}, {2, 1, false}, {2, 2, true}, {3, 1, false}, {3, 2, true}, {10, 3, false}, {10, 4, true},
		{1000, 1, false}, {1000, 300, false}, {1000, 301, true}, {1000, 600, true}, {1000, 1000, true},
	} {
		f := newFleet(t, tt.nodes)
		f.fall(0, tt.fall, false)
		want := 0
		if tt.held {
			want = tt.fall
		}
		f.after(0, tt.held, want)
	}
}

// TestWindow: falls far apart are not at once.
func TestWindow(t *testing.T) {
	f := newFleet(t, 10)
	for i := range 9 {
		f.fall(i, i+1, false)
		f.after(0, false, 0)
		f.after(61*time.Second, false, 0)
		f.renew()
	}
	f = newFleet(t, 10)
	f.fall(0, 3, false)
	f.after(30*time.Second, false, 0)
	f.fall(3, 4, false)
	f.after(0, true, 4) // those of the window are part of it
}

// TestConfirm: a person ends a hold by its name, once; what falls later is another hold.
func TestConfirm(t *testing.T) {
	f := newFleet(t, 10)
	f.fall(0, 6, false)
	id := f.after(0, true, 6).HoldID
	f.confirm = "another"
	f.after(time.Hour, true, 6)
	f.confirm = id
	f.after(time.Second, false, 0)
	f.after(time.Second, false, 0)
	f.renew()
	f.fall(6, 10, false)
	if again := f.after(2*time.Second, true, 4).HoldID; again == id {
		t.Errorf("hold after a confirmed one has its ID %s", id)
	}
}

// TestTrustReturns: a hold ends when all are back, or when few are left and none comes any more.
func TestTrustReturns(t *testing.T) {
	f := newFleet(t, 10)
	f.fall(0, 6, false)
	f.after(0, true, 6)
	f.back(0, 6)
	f.after(5*time.Second, false, 0)

	f = newFleet(t, 10)
	f.fall(0, 6, false)
	f.after(0, true, 6)
	f.after(10*time.Minute, true, 6)
	f.back(0, 4)
	f.after(time.Second, true, 2) // two are left: others may follow them back
	f.after(58*time.Second, true, 2)
	f.after(2*time.Second, false, 0) // they did not
	f.after(time.Second, false, 0)
}

// TestSingleInOutage: a node that is found compromised is never held, although all others are silent.
func TestSingleInOutage(t *testing.T) {
	f := newFleet(t, 10)
	f.fall(0, 9, true)
	f.after(0, true, 9)
	f.fall(9, 10, false)
	if o := f.after(time.Second, true, 9); o.Nodes["w9"] {
		t.Error("the compromised node is held")
	}
}

// TestOutage: when AIAS is silent all results end within one interval. The first that ends is held already: the others are as late as it is.
func TestOutage(t *testing.T) {
	f := newFleet(t, 100)
	start := f.now
	for i := range f.nodes { // attested one after the other within a minute
		at := start.Add(-time.Duration(i) * time.Minute / 100)
		f.nodes[i].Issued, f.nodes[i].Expires = at, at.Add(5*time.Minute)
	}
	f.after(3*time.Minute, false, 0)
	f.now = f.nodes[99].Expires
	f.fall(99, 100, true)
	f.after(0, true, 1)
	f.now = f.now.Add(2 * time.Minute)
	f.fall(0, 99, true)
	f.after(0, true, 100)
	f.after(time.Hour, true, 100)
	f.back(0, 100)
	f.after(time.Second, false, 0)
}

// TestSilentNode: one node that is silent while the others attest is carried out.
func TestSilentNode(t *testing.T) {
	f := newFleet(t, 100)
	f.now = f.now.Add(5 * time.Minute)
	f.renew()
	f.fall(0, 1, true)
	f.after(0, false, 0)
}

// TestRestart: the state and the times of the falls are all there is; a new leader decides as the last one did.
func TestRestart(t *testing.T) {
	f := newFleet(t, 10)
	f.fall(0, 3, false)
	f.after(20*time.Second, false, 0)
	f.fall(3, 6, false)
	before := f.after(300*time.Millisecond, true, 6)
	f.state = State{Held: true, HoldID: before.HoldID, Since: before.Since} // as the object has it
	if o := f.after(10*time.Minute, true, 6); o.HoldID != before.HoldID {
		t.Errorf("hold after a restart: got %s, want %s", o.HoldID, before.HoldID)
	}
	f.fall(6, 7, false)
	f.after(time.Second, true, 7)
}
