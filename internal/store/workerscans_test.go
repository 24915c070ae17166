package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestWorkerScans(t *testing.T) {
	s, ctx := open(t), context.Background()
	a, b := enrol(t, s, "a", 1), enrol(t, s, "b", 2)
	scan := func(node int64, config, content string, at time.Time) WorkerScan {
		return WorkerScan{ImageScan: ImageScan{Manifest: "m" + config, Config: config, Profile: "p", At: at, Record: []byte(content)}, Content: content, Node: node, Received: at}
	}
	one, other, second := scan(a.ID, "1", "x", now), scan(a.ID, "1", "y", now.Add(time.Minute)), scan(b.ID, "2", "x", now.Add(2*time.Minute))
	for _, w := range []WorkerScan{one, other, second} {
		if err := s.PutWorkerScan(ctx, w, 100); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when, digest string, want ...WorkerScan) {
		t.Helper()
		got, err := s.WorkerScans(ctx, digest, 10)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: WorkerScans(%q): %v (-want +got):\n%s", when, digest, err, diff)
		}
	}
	check("all", "", second, other, one)
	check("by manifest", "m1", other, one)
	check("by configuration", "2", second)
	if err := s.PutWorkerScan(ctx, scan(b.ID, "1", "x", now.Add(-time.Second)), 100); !errors.Is(err, ErrUsed) {
		t.Errorf("an older scan: got %v, want %v", err, ErrUsed)
	}
	newer := scan(b.ID, "1", "x", now.Add(3*time.Minute))
	if err := s.PutWorkerScan(ctx, newer, 2); err != nil {
		t.Fatal(err)
	}
	check("a newer one by another node, and the oldest is gone", "", newer, second)
	if _, err := s.Save(ctx, &Update{Node: b.ID, State: b.State, Revoke: now.Add(150 * time.Second)}); err != nil {
		t.Fatal(err)
	}
	check("those of late are gone", "", second)
	if err := s.Delete(ctx, b.ID, &Change{Node: "b", At: now}, Act{At: now}); err != nil {
		t.Fatal(err)
	}
	check("with their node", "")
}
