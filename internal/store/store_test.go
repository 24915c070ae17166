package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var now = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func open(t testing.TB) *SQLite {
	t.Helper()
	s, err := Open(context.Background(), filepath.Join(t.TempDir(), "a.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// enrol puts a node into the store; a letter makes name and EK.
func enrol(t testing.TB, s *SQLite, name string, ek byte) Node {
	t.Helper()
	n, _, err := s.Enrol(context.Background(), enrolment(name, ek))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

var sessions int

func enrolment(name string, ek byte) Enrolment {
	sessions++
	return Enrolment{Session: fmt.Append(nil, sessions), Until: now.Add(time.Minute), Now: now, Node: Node{
		Name: name, EK: [32]byte{ek}, EKCert: "allow-list", AKPublic: []byte{1}, TLSKey: [32]byte{2}, Enrolled: now,
		State: State{Trust: "unknown", Since: now},
	}}
}

func TestEnrolBinding(t *testing.T) {
	s, ctx := open(t), context.Background()
	first := enrol(t, s, "a", 1)
	if _, _, err := s.Enrol(ctx, enrolment("a", 2)); !errors.Is(err, ErrNameTaken) {
		t.Errorf("Enrol(a, other EK): got %v, want %v", err, ErrNameTaken)
	}
	if _, _, err := s.Enrol(ctx, enrolment("b", 1)); !errors.Is(err, ErrTPMTaken) {
		t.Errorf("Enrol(b, EK of a): got %v, want %v", err, ErrTPMTaken)
	}
	again, change, err := s.Enrol(ctx, enrolment("a", 1))
	if err != nil || again.ID != first.ID || change != nil {
		t.Errorf("Enrol(a, same EK): got id %d, change %v, %v; want id %d and no change", again.ID, change, err, first.ID)
	}
	if err := s.Rebind(ctx, first.ID, nil, now.Add(time.Minute), Act{At: now}); err != nil {
		t.Fatal(err)
	}
	next, change, err := s.Enrol(ctx, enrolment("a", 2))
	if err != nil || next.ID == first.ID || change == nil {
		t.Errorf("Enrol(a, other EK) after a rebind: got id %d, change %v, %v; want a new node", next.ID, change, err)
	}
}

func TestEnrolSessionAndToken(t *testing.T) {
	s, ctx := open(t), context.Background()
	if err := s.PutToken(ctx, Token{ID: "t", Hash: []byte{1}, Node: "a", Left: 1, Created: now, Expires: now.Add(time.Hour)}, Act{At: now}); err != nil {
		t.Fatal(err)
	}
	e := enrolment("b", 2)
	e.Token = "t"
	if _, _, err := s.Enrol(ctx, e); !errors.Is(err, ErrToken) {
		t.Errorf("Enrol(b, token of a): got %v, want %v", err, ErrToken)
	}
	e = enrolment("a", 1)
	e.Token = "t"
	if _, _, err := s.Enrol(ctx, e); err != nil {
		t.Fatalf("Enrol(a): %v", err)
	}
	if _, _, err := s.Enrol(ctx, e); !errors.Is(err, ErrUsed) {
		t.Errorf("Enrol(a, same session): got %v, want %v", err, ErrUsed)
	}
	e.Session = []byte("other")
	if _, _, err := s.Enrol(ctx, e); !errors.Is(err, ErrToken) {
		t.Errorf("Enrol(a, used token): got %v, want %v", err, ErrToken)
	}
	e = enrolment("a", 1)
	e.Token, e.Now = "t", now.Add(2*time.Hour)
	if _, _, err := s.Enrol(ctx, e); !errors.Is(err, ErrToken) {
		t.Errorf("Enrol(a, expired token): got %v, want %v", err, ErrToken)
	}
	if tok, err := s.Token(ctx, "t"); err != nil || tok.Left != 0 {
		t.Errorf("Token(t): got %+v, %v; want none left", tok, err)
	}
}

func step(n Node, challenge int64) *Update {
	return &Update{
		Node: n.ID, Challenge: challenge, Verdict: []byte(`{"trusted":true}`),
		State:    State{Trust: "trusted", Levels: []byte("[]"), Since: now, Attested: now, Expires: now.Add(time.Minute), Checkpoint: []byte{9}, Snapshot: "s", Result: "jwt", List: 1},
		Evidence: []Evidence{{Kind: LastGood, At: now, Document: []byte("doc"), EventLog: []byte{1}, Facts: []byte{2}, List: 1, IMALen: 4}},
		Blobs:    []Blob{{[]byte{1}, []byte("log")}, {[]byte{2}, []byte("facts")}},
		IMA:      []byte("list"), Change: &Change{Node: n.Name, At: now, Cause: "evidence", From: "unknown", To: "trusted"},
	}
}

func TestSaveAndReadBack(t *testing.T) {
	s, ctx := open(t), context.Background()
	n := enrol(t, s, "a", 1)
	id, err := s.Save(ctx, step(n, 10))
	if err != nil || id == 0 {
		t.Fatalf("Save(): got change %d, %v", id, err)
	}
	next := step(n, 11)
	next.IMA, next.IMAOffset, next.Verdict, next.Change = []byte("more"), 4, nil, nil
	next.Evidence[0].IMALen, next.Evidence[0].Kind, next.Evidence[0].IMATail = 8, LastBad, []byte("tail")
	if id, err := s.Save(ctx, next); err != nil || id != 0 {
		t.Fatalf("Save(no change): got change %d, %v", id, err)
	}
	e, err := s.Evidence(ctx, n.ID, LastBad)
	if err != nil || string(e.IMATail) != "tail" || string(e.Document) != "doc" || e.IMALen != 8 {
		t.Errorf("Evidence(): got %+v, %v", e, err)
	}
	for length, want := range map[uint64]string{0: "", 4: "list", 6: "listmo", 8: "listmore"} {
		if b, err := s.IMA(ctx, n.ID, 1, length); err != nil || string(b) != want {
			t.Errorf("IMA(%d): got %q, %v; want %q", length, b, err, want)
		}
	}
	if _, err := s.IMA(ctx, n.ID, 1, 9); !errors.Is(err, ErrNotFound) {
		t.Errorf("IMA(beyond the end): got %v, want %v", err, ErrNotFound)
	}
	if b, err := s.Blob(ctx, []byte{2}); err != nil || string(b) != "facts" {
		t.Errorf("Blob(): got %q, %v", b, err)
	}
	if v, err := s.Verdict(ctx, n.ID); err != nil || !bytes.Contains(v, []byte("trusted")) {
		t.Errorf("Verdict(): got %q, %v", v, err)
	}
	nodes, err := s.Nodes(ctx)
	if err != nil || len(nodes) != 1 {
		t.Fatalf("Nodes(): got %d, %v", len(nodes), err)
	}
	want := next.State
	want.Watermark, want.Result = 11, "" // results are not loaded with the nodes
	if diff := cmp.Diff(want, nodes[0].State); diff != "" {
		t.Errorf("state differs (-want +got):\n%s", diff)
	}
}

func TestChallengeOnce(t *testing.T) {
	s, ctx := open(t), context.Background()
	n := enrol(t, s, "a", 1)
	if _, err := s.Save(ctx, step(n, 10)); err != nil {
		t.Fatal(err)
	}
	for _, used := range []int64{10, 9} {
		if _, err := s.Save(ctx, step(n, used)); !errors.Is(err, ErrUsed) {
			t.Errorf("Save(challenge %d after 10): got %v, want %v", used, err, ErrUsed)
		}
	}
	if h, err := s.History(ctx, "", 10, 0); err != nil || len(h) != 2 {
		t.Errorf("History(): got %d changes, %v; want 2: refused steps write nothing", len(h), err)
	}
}

func TestListsAreLetGo(t *testing.T) {
	s, ctx := open(t), context.Background()
	n := enrol(t, s, "a", 1)
	for i := range int64(4) {
		u := step(n, 10+i)
		u.State.List, u.Evidence[0].List = i+1, i+1
		u.Verdict, u.Change = nil, nil
		if _, err := s.Save(ctx, u); err != nil {
			t.Fatal(err)
		}
	}
	for list, want := range map[int64]bool{1: false, 3: false, 4: true} {
		_, err := s.IMA(ctx, n.ID, list, 4)
		if (err == nil) != want {
			t.Errorf("IMA(list %d): got %v, want kept %v", list, err, want)
		}
	}
}

func TestClean(t *testing.T) {
	s, ctx := open(t), context.Background()
	n := enrol(t, s, "a", 1)
	u := step(n, 10)
	u.Blobs = append(u.Blobs, Blob{[]byte{3}, []byte("nobody's")})
	if _, err := s.Save(ctx, u); err != nil {
		t.Fatal(err)
	}
	if err := s.Clean(ctx, now.Add(24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Blob(ctx, []byte{3}); !errors.Is(err, ErrNotFound) {
		t.Errorf("Blob(nobody's) after Clean: got %v, want %v", err, ErrNotFound)
	}
	if _, err := s.Blob(ctx, []byte{1}); err != nil {
		t.Errorf("Blob(of evidence) after Clean: %v", err)
	}
	if b, err := s.IMA(ctx, n.ID, 1, 4); err != nil || string(b) != "list" {
		t.Errorf("IMA() after Clean: got %q, %v", b, err)
	}
}

func TestDeleteKeepsHistory(t *testing.T) {
	s, ctx := open(t), context.Background()
	n := enrol(t, s, "a", 1)
	if _, err := s.Save(ctx, step(n, 10)); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, n.ID, &Change{Node: "a", At: now, Cause: "operator"}, Act{At: now, Act: "node.delete"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Evidence(ctx, n.ID, LastGood); !errors.Is(err, ErrNotFound) {
		t.Errorf("Evidence(removed): got %v, want %v", err, ErrNotFound)
	}
	if h, err := s.History(ctx, "a", 10, 0); err != nil || len(h) != 3 {
		t.Errorf("History(removed): got %d, %v; want 3", len(h), err)
	}
	if _, err := s.Save(ctx, step(n, 11)); !errors.Is(err, ErrUsed) && !errors.Is(err, ErrNotFound) {
		t.Errorf("Save(removed): got %v, want a refusal", err)
	}
}

func TestAppendOnly(t *testing.T) {
	s, ctx := open(t), context.Background()
	enrol(t, s, "a", 1)
	for _, q := range []string{`DELETE FROM history`, `UPDATE history SET node = 'b'`} {
		err := s.write(ctx, false, func(x *txn) error { _, err := x.exec(q); return err })
		if err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: got %v, want a refusal", q, err)
		}
	}
}

func TestOneBadWriteHarmsNoOther(t *testing.T) {
	s, ctx := open(t), context.Background()
	n := enrol(t, s, "a", 1)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if i%10 == 0 { // breaks its transaction in the middle
				err := s.write(ctx, true, func(x *txn) error {
					if _, err := x.exec(`INSERT INTO settings (key, value) VALUES (?, x'00')`, fmt.Sprint("half", i)); err != nil {
						return err
					}
					return errors.New("broken")
				})
				if err == nil {
					t.Error("broken write: got no error")
				}
				return
			}
			if err := s.PutSettings(ctx, map[string][]byte{fmt.Sprint("k", i): {1}}, nil); err != nil {
				t.Errorf("write beside a broken one: %v", err)
			}
		}()
	}
	wg.Wait()
	for i := range 200 {
		_, half := s.Setting(ctx, fmt.Sprint("half", i))
		_, whole := s.Setting(ctx, fmt.Sprint("k", i))
		if half == nil || (i%10 != 0) != (whole == nil) {
			t.Errorf("write %d: half written %v, whole %v", i, half == nil, whole)
		}
	}
	_ = n
}

func TestNewerDatabaseIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s, err := Open(context.Background(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.write(context.Background(), false, func(x *txn) error {
		_, err := x.exec(`INSERT INTO migrations (version) VALUES (999)`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if _, err := Open(context.Background(), path, nil); err == nil || !strings.Contains(err.Error(), "999") {
		t.Errorf("Open(newer database): got %v, want a refusal", err)
	}
}

func TestClosed(t *testing.T) {
	s := open(t)
	_ = s.Close()
	if err := s.PutSettings(context.Background(), map[string][]byte{"a": {1}}, nil); err == nil {
		t.Error("PutSettings() after Close: got no error")
	}
}
