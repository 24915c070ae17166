package ima_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/ima"
	"touchstone.dev/touchstone/internal/ima/imatest"
	"touchstone.dev/touchstone/internal/tpm"
)

// worker is a list as workers have: an aggregate, files, one violation.
func worker(banks ...tpm.Alg) *imatest.Builder {
	return grow(imatest.New(banks...))
}

func grow(b *imatest.Builder) *imatest.Builder {
	b.Aggregate("ima-sig", &tpm.Bank{Alg: tpm.AlgSHA256}).Files(5)
	b.Add("ima-sig", imatest.Fields{Alg: tpm.AlgSHA256, Path: "/var/log/audit.log", Violation: true})
	return b.Files(5)
}

func TestRefusals(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*imatest.Builder)
		want   error
	}{
		{"entry removed", func(b *imatest.Builder) { b.Remove(3) }, ima.ErrNoPrefix},
		{"first entry removed", func(b *imatest.Builder) { b.Remove(0) }, ima.ErrNoPrefix},
		{"last entry removed: rolled back", func(b *imatest.Builder) { b.Remove(b.Len() - 1) }, ima.ErrNoPrefix},
		{"violation removed", func(b *imatest.Builder) { b.Remove(6) }, ima.ErrNoPrefix},
		{"entries swapped", func(b *imatest.Builder) { b.Swap(2) }, ima.ErrNoPrefix},
		{"path altered", func(b *imatest.Builder) { b.Alter(2, false, func(e []byte) { e[len(e)-6]++ }) }, ima.ErrTemplateHash},
		{"path altered, template hash made to fit", func(b *imatest.Builder) { b.Alter(2, true, func(e []byte) { e[len(e)-6]++ }) }, ima.ErrNoPrefix},
		{"digest altered", func(b *imatest.Builder) { b.Alter(2, true, func(e []byte) { e[28+7+4+4+8]++ }) }, ima.ErrNoPrefix},
		{"template hash altered", func(b *imatest.Builder) { b.Alter(2, false, func(e []byte) { e[4]++ }) }, ima.ErrTemplateHash},
		{"violation shown as clean", func(b *imatest.Builder) { b.Alter(6, true, func([]byte) {}) }, ima.ErrNoPrefix},
		{"clean entry shown as violation", func(b *imatest.Builder) { b.Alter(2, false, func(e []byte) { clear(e[4:24]) }) }, ima.ErrNoPrefix},
		{"other PCR", func(b *imatest.Builder) { b.Alter(2, false, func(e []byte) { e[0] = 11 }) }, ima.ErrPCR},
		{"name of 0 bytes", func(b *imatest.Builder) { b.Alter(2, false, func(e []byte) { e[24] = 0 }) }, ima.ErrMalformed},
		{"name length bomb", func(b *imatest.Builder) { b.Alter(2, false, func(e []byte) { copy(e[24:], "\xff\xff\xff\xff") }) }, ima.ErrMalformed},
		{"data length bomb", func(b *imatest.Builder) { b.Alter(2, false, func(e []byte) { copy(e[28+7:], "\xff\xff\xff\xff") }) }, ima.ErrMalformed},
		{"everything removed", func(b *imatest.Builder) {
			for b.Len() > 0 {
				b.Remove(0)
			}
		}, ima.ErrNoPrefix},
	} {
		for _, banks := range [][]tpm.Alg{{tpm.AlgSHA256}, {tpm.AlgSHA1, tpm.AlgSHA384}} {
			b := worker(banks...)
			test.change(b)
			res, err := ima.Verify(b.Bytes(), ima.State{}, b.PCRs())
			if !errors.Is(err, test.want) || res != nil {
				t.Errorf("Verify(%s): got %v, want %v", test.name, err, test.want)
			}
		}
	}
}

func TestTruncatedAtEveryByte(t *testing.T) {
	for _, b := range []*imatest.Builder{worker(), imatest.New().Add("ima", imatest.Fields{Digest: sha1Digest, Path: "/sbin/init"})} {
		list := b.Bytes()
		for n := range list {
			if res, err := ima.Verify(list[:n], ima.State{}, b.PCRs()); err == nil {
				t.Fatalf("Verify(first %d of %d bytes): got %d entries, want an error", n, len(list), res.Matched)
			}
			if res, err := ima.Verify(append(b.Bytes(), list[:n+1]...), ima.State{}, b.PCRs()); err == nil && res.Matched != b.Len() {
				t.Fatalf("Verify(with %d more bytes): got %d matched, want %d", n+1, res.Matched, b.Len())
			}
		}
	}
}

func TestListMovesWhileRead(t *testing.T) {
	b := worker(tpm.AlgSHA256, tpm.AlgSHA384)
	quoted := b.PCRs()
	b.Files(4)
	res, err := ima.Verify(b.Bytes(), ima.State{}, quoted)
	if err != nil || res.Matched != 12 || res.Unmatched != 4 || res.State.Entries != 12 || int(res.State.Offset) != b.Offset(12) {
		t.Fatalf("Verify: got %+v, %v, want 12 matched, 4 unmatched", res, err)
	}
	res, err = ima.Verify(b.Since(12), res.State, b.PCRs())
	if err != nil || res.Matched != 4 || entries(res)[0].Index != 12 || entries(res)[0].Offset != b.Offset(12) {
		t.Errorf("Verify(the rest): got %+v, %v, want 4 matched from entry 12", res, err)
	}
	// Quotes of two banks that were made at different points fit no prefix.
	mixed := map[tpm.Alg][]byte{tpm.AlgSHA256: quoted[tpm.AlgSHA256], tpm.AlgSHA384: b.PCRs()[tpm.AlgSHA384]}
	if _, err := ima.Verify(b.Bytes(), ima.State{}, mixed); !errors.Is(err, ima.ErrNoPrefix) {
		t.Errorf("Verify(quotes of two points): got %v, want ErrNoPrefix", err)
	}
}

func TestResume(t *testing.T) {
	b := worker(tpm.AlgSHA1, tpm.AlgSHA256)
	res, err := ima.Verify(b.Bytes(), ima.State{}, b.PCRs())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := cbor.Marshal(res.State)
	if err != nil {
		t.Fatal(err)
	}
	var state ima.State
	if err := cbor.Unmarshal(raw, &state); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(res.State, state); diff != "" {
		t.Errorf("State through CBOR (-want +got):\n%s", diff)
	}
	at := b.Len()
	b.Files(3)
	whole, err := ima.Verify(b.Bytes(), ima.State{}, b.PCRs())
	if err != nil {
		t.Fatal(err)
	}
	part, err := ima.Verify(b.Since(at), state, b.PCRs())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(whole.State, part.State); diff != "" {
		t.Errorf("State after two parts (-whole +parts):\n%s", diff)
	}
	if diff := cmp.Diff(entries(whole)[at:], entries(part)); diff != "" {
		t.Errorf("Entries of the second part (-whole +parts):\n%s", diff)
	}

	other := state.Clone()
	other.Banks[1].Value[0]++
	for _, test := range []struct {
		name   string
		list   []byte
		from   ima.State
		quoted map[tpm.Alg][]byte
		want   error
	}{
		{"another boot's state", b.Since(at), other, b.PCRs(), ima.ErrNoPrefix},
		{"list from too far", b.Since(at + 1), state, b.PCRs(), ima.ErrNoPrefix},
		{"list from the start", b.Bytes(), state, b.PCRs(), ima.ErrNoPrefix},
		{"new part from the start", b.Since(at), ima.State{}, b.PCRs(), ima.ErrNoPrefix},
		{"nothing new, quote moved", nil, state, b.PCRs(), ima.ErrNoPrefix},
		{"bank not seen before", b.Since(at), state, map[tpm.Alg][]byte{tpm.AlgSHA384: make([]byte, 48)}, ima.ErrState},
		{"offset without entries", b.Bytes(), ima.State{Offset: 5}, b.PCRs(), ima.ErrState},
		{"no byte order", b.Since(at), ima.State{Entries: 3, Banks: state.Banks}, b.PCRs(), ima.ErrState},
		{"bank without value", b.Since(at), ima.State{Entries: 3, Order: ima.BigEndian, Banks: []ima.Bank{{Alg: tpm.AlgSHA256, Modes: 1}}}, b.PCRs(), ima.ErrState},
		{"other byte order", b.Since(at), ima.State{Entries: 3, Order: ima.BigEndian, Banks: state.Banks}, b.PCRs(), ima.ErrMalformed},
		{"nothing quoted", b.Bytes(), ima.State{}, nil, ima.ErrNoPrefix},
	} {
		if _, err := ima.Verify(test.list, test.from, test.quoted); !errors.Is(err, test.want) {
			t.Errorf("Verify(%s): got %v, want %v", test.name, err, test.want)
		}
	}
	if _, err := ima.Verify(b.Bytes(), ima.State{}, map[tpm.Alg][]byte{tpm.AlgSHA256: {1}}); err == nil {
		t.Error("Verify(quoted value of 1 byte): got no error")
	}
	if _, err := ima.Verify(b.Bytes(), ima.State{}, map[tpm.Alg][]byte{tpm.AlgECC: {1}}); err == nil {
		t.Error("Verify(bank of no hash): got no error")
	}
}

// The mode of a bank is found out, narrowed down by the first violation, and kept.
func TestModes(t *testing.T) {
	for _, test := range []struct {
		name       string
		mode       ima.Modes
		before, at ima.Modes // before and after the first violation
	}{
		{"hashed", ima.ModeHash, ima.ModeHash, ima.ModeHash},
		{"padded", ima.ModePad, ima.ModePad | ima.ModePadFF, ima.ModePad},
		{"padded, violations full", ima.ModePadFF, ima.ModePad | ima.ModePadFF, ima.ModePadFF},
	} {
		b := imatest.New(tpm.AlgSHA256, tpm.AlgSHA384).Mode(tpm.AlgSHA384, test.mode).Files(2)
		first, err := ima.Verify(b.Bytes(), ima.State{}, b.PCRs())
		if err != nil {
			t.Errorf("%s: Verify: %v", test.name, err)
			continue
		}
		if got := first.State.Banks[1].Modes; got != test.before || first.State.Banks[0].Modes != ima.ModeHash {
			t.Errorf("%s: got modes %b, want %b", test.name, got, test.before)
		}
		b.Add("ima-ng", imatest.Fields{Alg: tpm.AlgSHA256, Path: "/x", Violation: true})
		second, err := ima.Verify(b.Since(2), first.State, b.PCRs())
		if err != nil {
			t.Errorf("%s: Verify(violation): %v", test.name, err)
			continue
		}
		if got := second.State.Banks[1].Modes; got != test.at {
			t.Errorf("%s: got modes %b after a violation, want %b", test.name, got, test.at)
		}
		// Another mode later on is not this kernel.
		other := ima.ModePad
		if test.mode == ima.ModePad {
			other = ima.ModeHash
		}
		b.Mode(tpm.AlgSHA384, other).Add("ima-ng", imatest.Fields{Alg: tpm.AlgSHA256, Path: "/x", Violation: true}).Files(1)
		if _, err := ima.Verify(b.Since(3), second.State, b.PCRs()); !errors.Is(err, ima.ErrNoPrefix) {
			t.Errorf("%s: Verify(mixed modes): got %v, want ErrNoPrefix", test.name, err)
		}
		if got := first.State.SHA1Only(); got {
			t.Errorf("%s: SHA1Only: got true with a hashed SHA-256 bank", test.name)
		}
	}
}

func TestParseStopsWhenAsked(t *testing.T) {
	stop := errors.New("stop")
	n := 0
	if err := ima.Parse(worker().Bytes(), func(*ima.Entry) error { n++; return stop }); err != stop || n != 1 {
		t.Errorf("Parse: got %v after %d entries, want stop after 1", err, n)
	}
	if err := ima.Parse(binary.LittleEndian.AppendUint32(nil, 10), func(*ima.Entry) error { return nil }); !errors.Is(err, ima.ErrMalformed) {
		t.Errorf("Parse(4 bytes): got %v, want ErrMalformed", err)
	}
	if err := ima.Parse(nil, nil); err != nil {
		t.Errorf("Parse(empty): %v", err)
	}
}

func TestTooManyEntries(t *testing.T) {
	entry := imatest.New().Raw("ima-ng", nil).Bytes()
	list := bytes.Repeat(entry, ima.MaxEntries+1)
	if err := ima.Parse(list, func(*ima.Entry) error { return nil }); !errors.Is(err, ima.ErrMalformed) {
		t.Errorf("Parse(%d entries): got %v, want ErrMalformed", ima.MaxEntries+1, err)
	}
	if _, err := ima.Verify(list, ima.State{}, map[tpm.Alg][]byte{tpm.AlgSHA1: make([]byte, 20)}); !errors.Is(err, ima.ErrMalformed) {
		t.Errorf("Verify(%d entries): got %v, want ErrMalformed", ima.MaxEntries+1, err)
	}
}
