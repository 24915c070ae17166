package ledger

import (
	"context"
	"strconv"
	"testing"
	"time"
)

func TestRepeats(t *testing.T) {
	now := time.Unix(1000, 0)
	r := newRepeats(func() time.Time { return now })
	e := Entry{Kind: KeyRefused, Node: "worker-1", Subject: "disk:a", Reason: "not trusted"}
	expect := func(e Entry, wantBefore int, wantWrite bool) {
		t.Helper()
		if before, write := r.count(e); before != wantBefore || write != wantWrite {
			t.Errorf("count(): got %d, %v; want %d, %v", before, write, wantBefore, wantWrite)
		}
	}
	expect(e, 0, true)
	for range 99 {
		expect(e, 0, false)
	}
	other := e
	other.Reason = "stale"
	expect(other, 0, true)
	now = now.Add(RepeatWindow)
	expect(e, 99, true) // the next after the window tells how many
	expect(e, 0, false)
	expect(e, 0, false)
	if got := r.settle(false); len(got) != 0 {
		t.Errorf("settle() within the window: got %+v", got)
	}
	now = now.Add(RepeatWindow)
	if got := r.settle(false); len(got) != 1 || got[0].Repeated != 1 || got[0].Reason != e.Reason {
		t.Errorf("settle(): got %+v, want the refusal that stands for two", got)
	}
	if len(r.seen)+len(r.of)+len(r.further) != 0 {
		t.Errorf("after settle(): %d, %d and %d are still counted", len(r.seen), len(r.of), len(r.further))
	}
}

// TestRefusalStorm: however different the refusals of a storm are, a window writes a bounded number, and none is forgotten.
func TestRefusalStorm(t *testing.T) {
	for name, of := range map[string]func(int) Entry{
		"one node, other subjects": func(i int) Entry { return Entry{Kind: KeyRefused, Node: "worker-1", Subject: strconv.Itoa(i)} },
		"other nodes":              func(i int) Entry { return Entry{Kind: KeyRefused, Node: strconv.Itoa(i), Subject: "a"} },
		"both":                     func(i int) Entry { return Entry{Kind: KeyRefused, Node: strconv.Itoa(i / 3), Subject: strconv.Itoa(i)} },
	} {
		r := newRepeats(func() time.Time { return time.Unix(1000, 0) })
		const n = 20000
		told := 0
		for i := range n {
			if before, write := r.count(of(i)); write {
				told += 1 + before
			}
		}
		written := told
		for _, e := range r.settle(true) {
			told += 1 + e.Repeated
			written++
		}
		if most := maxOfAll + 2*(maxNodes+1); written > most || told != n {
			t.Errorf("%s: %d refusals made %d entries that tell of %d; want at most %d that tell of all", name, n, written, told, most)
		}
	}
}

// TestRefusalsAreWritten: the first at once, the rest at the latest when the ledger closes.
func TestRefusalsAreWritten(t *testing.T) {
	dir, k := t.TempDir(), newKeys(t)
	l := open(t, dir, k)
	for range 10 {
		mustAppend(t, l, Entry{Kind: KeyRefused, Node: "worker-1", Reason: "not trusted"})
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r, told := reader(t, dir, k), 0
	cp := newest(t, r)
	for e, err := range r.Entries(context.Background(), cp, 0) {
		if err != nil {
			t.Fatal(err)
		}
		told += 1 + e.Repeated
	}
	if told != 10 || cp.Size != 2 {
		t.Errorf("ten refusals: got %d entries that tell of %d, want 2 that tell of 10", cp.Size, told)
	}
}
