package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// hostile is a source whose bytes somebody else chose.
type hostile struct{ checkpoint, data []byte }

func (h hostile) ReadCheckpoint(context.Context) ([]byte, error) { return h.checkpoint, nil }

func (h hostile) ReadTile(context.Context, uint64, uint64, uint8) ([]byte, error) { return h.data, nil }

func (h hostile) ReadEntryBundle(context.Context, uint64, uint8) ([]byte, error) { return h.data, nil }

// FuzzSource: whatever a server or a folder answers, nothing is believed that the checkpoint does not commit to.
func FuzzSource(f *testing.F) {
	dir, k := filled(f, 3)
	honest := reader(f, dir, k)
	cp := newest(f, honest)
	bundle, err := Folder(dir).ReadEntryBundle(context.Background(), 0, 3)
	if err != nil {
		f.Fatal(err)
	}
	tile, err := Folder(dir).ReadTile(context.Background(), 0, 0, 3)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(cp.Text), bundle)
	f.Add([]byte(cp.Text), tile)
	f.Add([]byte("x\n1\n\n\n— x y\n"), []byte{0xff})
	f.Fuzz(func(t *testing.T, checkpoint, data []byte) {
		ctx := context.Background()
		r, err := NewReader(hostile{checkpoint, data}, k.public)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.Checkpoint(ctx); err == nil && (got.Size != cp.Size || string(got.Root) != string(cp.Root)) {
			t.Errorf("Checkpoint(%q): got %+v without a signature", checkpoint, got)
		}
		if err := r.Verify(ctx, cp, nil); err == nil && string(data[:min(len(data), len(bundle))]) != string(bundle) {
			t.Errorf("Verify(%x): got no error", data)
		}
		if p, err := r.Prove(ctx, cp, 1); err == nil {
			if _, err := honest.CheckProof(p); err != nil {
				t.Errorf("Prove() returned what does not check: %v", err)
			}
		}
	})
}

func FuzzProof(f *testing.F) {
	dir, k := filled(f, 3)
	r := reader(f, dir, k)
	p, err := r.Prove(context.Background(), newest(f, r), 1)
	if err != nil {
		f.Fatal(err)
	}
	data, err := json.Marshal(p)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := ParseProof(data)
		if err != nil {
			return
		}
		if e, err := r.CheckProof(got); err == nil && (got.Index != 1 || e.Node != "worker-1") {
			t.Errorf("CheckProof(%q): got %+v", data, e)
		} else if err != nil && !errors.Is(err, ErrTampered) && !errors.Is(err, ErrSignature) {
			t.Errorf("CheckProof(%q): got %v", data, err)
		}
	})
}

// FuzzJournal: whatever lies in the journal, only what was written with its key is taken.
func FuzzJournal(f *testing.F) {
	good, err := os.ReadFile(written(f, f.TempDir(), "a key", 0, [][]byte{[]byte("one"), []byte("two")}, [][]byte{[]byte("three")}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(append(good, good...))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, journalFile), b, 0o600); err != nil {
			t.Fatal(err)
		}
		j, got, err := openJournal(dir, "a key", 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = j.f.Close()
		if all := string(bytes.Join(got, []byte(" "))); !strings.HasPrefix("one two three", all) {
			t.Errorf("the journal gave %q", all)
		}
	})
}
