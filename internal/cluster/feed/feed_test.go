package feed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"

	"touchstone.dev/touchstone/internal/protocol"
)

// script is an AIAS that says what it was given, once, and closes the stream; a nil event is "synced".
type script []*protocol.NodeResult

func (s script) JWKS(context.Context) ([]byte, error) { return []byte(`{"keys":[]}`), nil }

func (s script) Results(_ context.Context, fn func(protocol.NodeResult) error, synced func() error) error {
	for _, r := range s {
		var err error
		if r == nil {
			err = synced()
		} else {
			err = fn(*r)
		}
		if err != nil {
			return err
		}
	}
	return io.EOF
}

func unknown(name string) *protocol.NodeResult {
	return &protocol.NodeResult{Node: name, Trust: protocol.Unknown}
}

func removed(name string) *protocol.NodeResult {
	return &protocol.NodeResult{Node: name, Removed: true}
}

// follow lets a feed follow one connection of an AIAS.
func follow(t *testing.T, f *Feed, s script) {
	t.Helper()
	f.o.Source = s
	if err := f.stream(context.Background()); !errors.Is(err, io.EOF) {
		t.Fatalf("stream(): got %v, want its end", err)
	}
}

func newFeed() (f *Feed, told *[]string) {
	f, told = New(Options{Log: slog.New(slog.DiscardHandler)}), new([]string)
	f.OnChange(func(_ context.Context, node string) { *told = append(*told, node) })
	return f, told
}

// TestRemovedBeforeSynced: until AIAS has told of all nodes, one that it removed is not one that it has still to tell of.
func TestRemovedBeforeSynced(t *testing.T) {
	f, _ := newFeed()
	follow(t, f, script{removed("w1")})
	if said, ok := f.Get("w1"); !ok || !said.Removed || f.Synced() {
		t.Errorf("Get(w1) before synced: got %+v, %v, want it removed", said, ok)
	}
	follow(t, f, script{unknown("w2"), nil})
	if _, ok := f.Get("w1"); ok || !f.Synced() {
		t.Errorf("Get(w1) after synced: got an entry, want none: who is not there is not enrolled")
	}
}

// TestGone: nodes that the next stream does not tell of are gone, and whoever listens is told.
func TestGone(t *testing.T) {
	f, told := newFeed()
	follow(t, f, script{unknown("w1"), unknown("w2"), nil})
	*told = nil
	follow(t, f, script{unknown("w2"), nil})
	if got, want := f.Nodes(), []string{"w2"}; !slices.Equal(got, want) {
		t.Errorf("Nodes(): got %q, want %q", got, want)
	}
	if want := []string{"w2", "w1"}; !slices.Equal(*told, want) {
		t.Errorf("told of %q, want %q", *told, want)
	}
}

// TestNamesDoNotPileUp: however many nodes come and go, what is kept are those that are there.
func TestNamesDoNotPileUp(t *testing.T) {
	f, told := newFeed()
	events := script{unknown("stays"), nil}
	for i := range maxNodes + 10 {
		name := fmt.Sprint("short-lived-", i)
		events = append(events, unknown(name), removed(name))
	}
	follow(t, f, events)
	if len(f.said) != 1 || len(*told) != len(events)-1 {
		t.Errorf("after %d nodes came and went: %d are kept and %d events were told, want 1 and %d", maxNodes+10, len(f.said), len(*told), len(events)-1)
	}
}

// TestTooManyNodes: a stream that tells of more nodes than there can be is ended.
func TestTooManyNodes(t *testing.T) {
	f, _ := newFeed()
	var events script
	for i := range maxNodes + 1 {
		events = append(events, unknown(fmt.Sprint("w", i)))
	}
	f.o.Source = events
	if err := f.stream(context.Background()); err == nil || errors.Is(err, io.EOF) || len(f.said) != maxNodes {
		t.Errorf("stream(): got %v with %d nodes kept, want an error and %d", err, len(f.said), maxNodes)
	}
}
