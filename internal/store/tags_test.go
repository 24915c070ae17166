package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTags(t *testing.T) {
	s, ctx := open(t), context.Background()
	n := enrol(t, s, "a", 1)
	if _, err := s.Tag(ctx, "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Tag of a node without: got %v, want %v", err, ErrNotFound)
	}
	want := Tag{Node: "a", Serial: 7, Tags: []byte(`{"x":"y"}`), Record: []byte{1}, Issued: now, Proven: true, Since: now.Add(time.Second), Reason: "why", Earlier: []byte{2}, EarlierTags: []byte(`{}`)}
	write := func(g Tag) error {
		_, err := s.Save(ctx, &Update{Node: n.ID, State: State{Trust: "trusted", Since: now}, Tag: &g, Act: &Act{At: now, Operator: "op", Act: "tags.set", Object: "a"}})
		return err
	}
	if err := write(want); err != nil {
		t.Fatal(err)
	}
	got, err := s.Tag(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Issued.UnixMicro(), got.Issued.UnixMicro()); diff != "" || got.Since.UnixMicro() != want.Since.UnixMicro() {
		t.Errorf("times of Tag: got %v and %v", got.Issued, got.Since)
	}
	got.Issued, got.Since = want.Issued, want.Since
	if diff := cmp.Diff(want, *got); diff != "" {
		t.Errorf("Tag (-want +got):\n%s", diff)
	}
	acts, err := s.Acts(ctx, 10)
	if err != nil || len(acts) != 1 {
		t.Errorf("Acts: got %v, %v, want the one of the step", acts, err)
	}

	older := want
	older.Serial = 6
	if err := write(older); !errors.Is(err, ErrSerial) {
		t.Errorf("Save with an older serial: got %v, want %v", err, ErrSerial)
	}
	if acts, _ = s.Acts(ctx, 10); len(acts) != 1 {
		t.Errorf("Acts after a refused step: got %d, want 1", len(acts))
	}

	if err := s.Delete(ctx, n.ID, &Change{Node: "a", At: now}, Act{At: now}); err != nil {
		t.Fatal(err)
	}
	all, err := s.Tags(ctx)
	if err != nil || len(all) != 1 || all[0].Serial != 7 || all[0].Record != nil || all[0].Tags != nil || all[0].Proven || all[0].Earlier != nil {
		t.Errorf("Tags after the node was removed: got %+v, %v, want the serial only", all, err)
	}
}

// A new attestation key has proven nothing; another TPM of the same name has no tags.
func TestTagsAfterEnrolment(t *testing.T) {
	s, ctx := open(t), context.Background()
	n := enrol(t, s, "a", 1)
	g := Tag{Node: "a", Serial: 1, Tags: []byte(`{"x":"y"}`), Record: []byte{1}, Issued: now, Since: now, Proven: true}
	if _, err := s.Save(ctx, &Update{Node: n.ID, State: State{Trust: "trusted", Since: now}, Tag: &g}); err != nil {
		t.Fatal(err)
	}
	enrol(t, s, "a", 1)
	if got, err := s.Tag(ctx, "a"); err != nil || !got.Proven || got.Record == nil {
		t.Errorf("Tag after enrolment with the same keys: got %+v, %v, want it as it was", got, err)
	}
	e := enrolment("a", 1)
	e.Node.AKPublic, e.Node.Enrolled = []byte{9}, now.Add(time.Hour)
	if _, _, err := s.Enrol(ctx, e); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Tag(ctx, "a"); err != nil || got.Proven || got.Record == nil || got.Reason == "" || !got.Since.Equal(now.Add(time.Hour)) {
		t.Errorf("Tag after enrolment with another attestation key: got %+v, %v, want it not proven", got, err)
	}
	if err := s.Rebind(ctx, n.ID, nil, now.Add(time.Minute), Act{At: now}); err != nil {
		t.Fatal(err)
	}
	enrol(t, s, "a", 2)
	if got, err := s.Tag(ctx, "a"); err != nil || got.Record != nil || got.Tags != nil || got.Serial != 1 {
		t.Errorf("Tag of a name that another TPM took: got %+v, %v, want the serial only", got, err)
	}
}
