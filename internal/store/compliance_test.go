package store

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCompliance(t *testing.T) {
	s, ctx := open(t), context.Background()
	n := enrol(t, s, "a", 1)
	if _, err := s.Compliance(ctx, n.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("Compliance of a node without: got %v, want %v", err, ErrNotFound)
	}
	step := func(want Compliance, write error) {
		t.Helper()
		got, err := s.Compliance(ctx, n.ID)
		want.Node = n.ID
		if diff := cmp.Diff(&want, got); diff != "" || err != nil || write != nil {
			t.Errorf("Compliance: %v, %v (-want +got):\n%s", write, err, diff)
		}
	}
	one, two, bad := []byte(`{"a":1}`), []byte(`{"a":2}`), []byte(`{"e":1}`)
	step(Compliance{Error: bad}, s.PutScanError(ctx, n.ID, bad))
	step(Compliance{Newest: one, Result: []byte{1}}, s.PutScan(ctx, n.ID, one, []byte{1}))
	step(Compliance{Newest: one, Result: []byte{1}, Error: bad}, s.PutScanError(ctx, n.ID, bad))
	step(Compliance{Newest: two, Previous: one, Result: []byte{2}}, s.PutScan(ctx, n.ID, two, []byte{2}))
	all, err := s.Compliances(ctx)
	if err != nil || len(all) != 1 || string(all[0].Newest) != string(two) {
		t.Errorf("Compliances: got %+v, %v", all, err)
	}
	asks := func(want []ScanAsk, err error) {
		t.Helper()
		got, errAsks := s.ScanAsks(ctx)
		if err != nil || errAsks != nil || !slices.Equal(got, want) {
			t.Errorf("ScanAsks: got %v, %v, %v; want %v", got, err, errAsks, want)
		}
	}
	seven := []ScanAsk{{n.ID, 7, true}}
	asks(nil, nil)
	asks(seven, s.PutScanAsk(ctx, seven[0]))
	asks(seven, s.PutScanAsk(ctx, ScanAsk{n.ID, 6, false}))
	asks(seven, s.DropScanAsk(ctx, n.ID, 6))
	asks(nil, s.DropScanAsk(ctx, n.ID, 7))
	asks([]ScanAsk{{n.ID, 8, false}}, s.PutScanAsk(ctx, ScanAsk{n.ID, 8, false}))
	if err := s.Delete(ctx, n.ID, &Change{Node: "a", At: now}, Act{At: now}); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Compliances(ctx); err != nil || len(all) != 0 {
		t.Errorf("Compliances of a removed node: got %+v, %v", all, err)
	}
	asks(nil, nil)
}
