package chain

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var someContext = Context{Namespace: "shop", Pod: "till-0", Container: "till", ImageDigest: "sha256:" + strings.Repeat("ab", 32), User: "ann"}

func someEntry(seq uint64) Entry {
	return Entry{Seq: seq, Time: time.Unix(1795000336, 990e6).UTC(), Kind: KindEvent, Context: someContext,
		Body: []byte("type=SYSCALL msg=audit(1795000336.990:769606): arch=c000003e syscall=59\ntype=PROCTITLE msg=audit(1795000336.990:769606): proctitle=6C73")}
}

func encoded(t testing.TB, e Entry) []byte {
	t.Helper()
	b, err := e.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEntryRoundTrip(t *testing.T) {
	for _, e := range []Entry{someEntry(1), {Seq: 1 << 60, Kind: KindStart, Body: []byte{0xa0}, Time: time.Unix(0, -1).UTC()}, {Seq: 7, Kind: KindGap, Time: time.Unix(1, 0).UTC(), Body: []byte{}}} {
		got, err := Parse(encoded(t, e))
		if err != nil {
			t.Fatalf("Parse(%v): %v", e, err)
		}
		if diff := cmp.Diff(e, got); diff != "" {
			t.Errorf("Parse(Append(%v)): %s", e, diff)
		}
	}
}

func TestEntryRefused(t *testing.T) {
	good := encoded(t, someEntry(1))
	change := func(at int, v byte) []byte {
		b := bytes.Clone(good)
		b[at] = v
		return b
	}
	for name, b := range map[string][]byte{
		"empty": nil, "short": good[:entryHead-1], "version": change(0, 9), "kind": change(1, 0), "number 0": change(9, 0),
		"context longer than the rest": change(18, 0x0f), "context is no CBOR": change(entryHead, 0xff), "context with an unknown key": change(entryHead+1, 0x17),
	} {
		if _, err := Parse(b); !errors.Is(err, ErrEntry) {
			t.Errorf("Parse(%s): got %v, want ErrEntry", name, err)
		}
	}
	long := someEntry(1)
	long.Context.Pod = strings.Repeat("x", maxField+1)
	if _, err := long.Append(nil); !errors.Is(err, ErrEntry) {
		t.Errorf("Append() of a long field: got %v, want ErrEntry", err)
	}
}

func TestBatch(t *testing.T) {
	p := Start(ID{1, 2, 3})
	b := &Batch{Before: p}
	for i := range uint64(5) {
		b.Entries = append(b.Entries, encoded(t, someEntry(i+1)))
	}
	raw := b.Encode()
	if len(raw) != b.Size() {
		t.Errorf("Size(): got %d, want %d", b.Size(), len(raw))
	}
	got, err := DecodeBatch(raw)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b, got); diff != "" {
		t.Error(diff)
	}
	end, err := got.End()
	if err != nil || end.Seq != 5 || end.Head == p.Head {
		t.Errorf("End(): %v, %v", end, err)
	}
	for n := range raw {
		if _, err := DecodeBatch(raw[:n]); !errors.Is(err, ErrEntry) {
			t.Fatalf("DecodeBatch(first %d bytes): got %v, want ErrEntry", n, err)
		}
	}
	b.Entries[2], b.Entries[3] = b.Entries[3], b.Entries[2]
	if _, err := DecodeBatch(b.Encode()); !errors.Is(err, ErrEntry) {
		t.Errorf("DecodeBatch() of entries in another order: got %v, want ErrEntry", err)
	}
	if _, err := b.End(); !errors.Is(err, ErrBroken) {
		t.Errorf("End() of entries in another order: got %v, want ErrBroken", err)
	}
}

// TestHeadCovers: no bit of an entry, of an earlier one or of the chain's ID can change without changing the head.
func TestHeadCovers(t *testing.T) {
	end := func(id ID, entries ...[]byte) Head {
		p, err := Verify(Start(id), entries)
		if err != nil {
			t.Fatal(err)
		}
		return p.Head
	}
	one, two := encoded(t, someEntry(1)), encoded(t, someEntry(2))
	want := end(ID{}, one, two)
	if end(ID{1}, one, two) == want {
		t.Error("the head does not cover the ID of the chain")
	}
	for i := entryHead; i < len(one); i++ {
		other := bytes.Clone(one)
		other[i] ^= 1
		if end(ID{}, other, two) == want {
			t.Fatalf("the head does not cover byte %d", i)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(encoded(f, someEntry(1)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Parse(b)
		if err != nil {
			return
		}
		again, err := e.Append(nil)
		if err != nil {
			t.Fatalf("Append() of what Parse took: %v", err)
		}
		if second, err := Parse(again); err != nil || !cmp.Equal(e, second) {
			t.Fatalf("an entry changed on its way: %v, %v, %v", e, second, err)
		}
	})
}

func FuzzDecodeBatch(f *testing.F) {
	b := &Batch{Before: Start(ID{1}), Entries: [][]byte{encoded(f, someEntry(1)), encoded(f, someEntry(2))}}
	f.Add(b.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := DecodeBatch(b)
		if err != nil {
			return
		}
		if !bytes.Equal(got.Encode(), b) {
			t.Fatal("a batch is not in its one form")
		}
		if _, err := got.End(); err != nil {
			t.Fatalf("End() of what DecodeBatch took: %v", err)
		}
	})
}

func FuzzUnpack(f *testing.F) {
	f.Add(Pack(&Batch{Before: Start(ID{1}), Entries: [][]byte{encoded(f, someEntry(1))}}))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = Unpack(b) })
}
