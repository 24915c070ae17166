package eventlog_test

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/eventlog/eventlogtest"
	"touchstone.dev/touchstone/internal/tpm"
)

func parse(t testing.TB, b []byte) *eventlog.Log {
	t.Helper()
	log, err := eventlog.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// open takes a real log apart.
func open(t testing.TB, name string) *eventlogtest.Builder {
	t.Helper()
	raw, err := os.ReadFile("../../test/boots/corpus/" + name + "/eventlog.bin")
	if err != nil {
		t.Fatal(err)
	}
	b, err := eventlogtest.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), raw) {
		t.Fatalf("Open(%s) does not give the same bytes back", name)
	}
	return b
}

// compared maps each mismatching PCR to the kind of its mismatch.
func compared(l *eventlog.Log, bank tpm.Bank) map[int]eventlog.MismatchKind {
	out := map[int]eventlog.MismatchKind{}
	for _, m := range l.Compare(&bank) {
		out[m.PCR] = m.Kind
	}
	return out
}

// TestReplay compares the replay of logs of every shape with what a TPM would hold.
func TestReplay(t *testing.T) {
	all := []tpm.Alg{tpm.AlgSHA1, tpm.AlgSHA256, tpm.AlgSHA384, tpm.AlgSHA512}
	unknown := small(tpm.AlgSHA256)
	unknown.Banks = append(unknown.Banks, eventlogtest.Bank{Alg: 0x12, Size: 32})
	hcrtm := eventlogtest.New(all...).Add(0, eventlog.EFIHCRTM, []byte("HCRTM"))
	hcrtm.Locality = 4
	both := eventlogtest.New(all...).AddLocality(3).Add(0, eventlog.EFIHCRTM, []byte("HCRTM"))
	both.Locality = 4
	legacyHeader := eventlogtest.NewLegacy().
		Add(0, eventlog.NoAction, []byte("Spec ID Event02\x00\x00\x00\x00\x00\x02\x01\x00\x02\x00")).
		Add(0, eventlog.SCRTMVersion, []byte("1.0")).AddSeparators()
	for _, tt := range []struct {
		name  string
		log   *eventlogtest.Builder
		algs  []tpm.Alg
		local int
	}{
		{"four banks", small(all...).AddSeparators(), all, eventlog.NoLocality},
		{"SHA-512 alone", small(tpm.AlgSHA512), []tpm.Alg{tpm.AlgSHA512}, eventlog.NoLocality},
		{"SHA-1 without header", eventlogtest.NewLegacy().AddSeparators(), []tpm.Alg{tpm.AlgSHA1}, eventlog.NoLocality},
		{"SHA-1 with header", legacyHeader, []tpm.Alg{tpm.AlgSHA1}, eventlog.NoLocality},
		{"locality 0", eventlogtest.New(all...).AddLocality(0).AddSeparators(), all, 0},
		{"locality 3", eventlogtest.New(all...).AddLocality(3).AddSeparators(), all, 3},
		{"locality 4", eventlogtest.New(all...).AddLocality(4).AddSeparators(), all, 4},
		{"locality 3, SHA-1 log", eventlogtest.NewLegacy().AddLocality(3).AddSeparators(), []tpm.Alg{tpm.AlgSHA1}, 3},
		{"H-CRTM", hcrtm, all, 4},
		{"H-CRTM and locality 3", both, all, 4},
		{"bank of an unknown algorithm", unknown, []tpm.Alg{tpm.AlgSHA256}, eventlog.NoLocality},
		{"dynamic launch", small(all...).Add(17, eventlog.TXTHashStart, []byte("a")).Add(18, eventlog.TXTSinitPubKeyHash, []byte("b")), all, eventlog.NoLocality},
		{"only the header", eventlogtest.New(all...), all, eventlog.NoLocality},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := parse(t, tt.log.Bytes())
			if log.Locality != tt.local {
				t.Errorf("Locality: got %d, want %d", log.Locality, tt.local)
			}
			if d := cmp.Diff(tt.algs, log.Algs); d != "" {
				t.Errorf("Algs (-want +got):\n%s", d)
			}
			for _, a := range tt.algs {
				want := tt.log.PCRs(a)
				if m := log.Compare(&want); m != nil {
					t.Errorf("Compare(%v): got %v, want nothing", a, m)
				}
				for i := range want.Values {
					if !extended(tt.log, i) {
						want.Values[i] = nil
					}
				}
				got, err := log.Replay(a)
				if err != nil {
					t.Fatalf("Replay(%v): %v", a, err)
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("Replay(%v) (-want +got):\n%s", a, d)
				}
			}
		})
	}
}

// extended reports whether an event of b extends PCR i.
func extended(b *eventlogtest.Builder, i int) bool {
	for _, e := range b.Entries {
		if e.PCR == uint32(i) && e.Type != eventlog.NoAction {
			return true
		}
	}
	return false
}

func TestReplayRefusesBank(t *testing.T) {
	log := parse(t, small(tpm.AlgSHA256).Bytes())
	for _, a := range []tpm.Alg{tpm.AlgSHA1, tpm.AlgNull, 0x12} {
		if _, err := log.Replay(a); !errors.Is(err, eventlog.ErrNoBank) {
			t.Errorf("Replay(%v): got error %v, want %v", a, err, eventlog.ErrNoBank)
		}
	}
	// A header of two banks, and an event with a digest for one of them only: the other bank's value can't be known.
	b := small(tpm.AlgSHA1, tpm.AlgSHA256)
	log = parse(t, append(b.Bytes(), lastEvent(small(tpm.AlgSHA1))...))
	if _, err := log.Replay(tpm.AlgSHA256); !errors.Is(err, eventlog.ErrNoBank) {
		t.Errorf("Replay of a bank that an event leaves out: got error %v, want %v", err, eventlog.ErrNoBank)
	}
	if _, err := log.Replay(tpm.AlgSHA1); err != nil {
		t.Errorf("Replay of the bank that is complete: %v", err)
	}
	quoted := b.PCRs(tpm.AlgSHA256)
	if got := compared(log, quoted); len(got) != tpm.NumPCRs-1 || got[7] != eventlog.NoBank {
		t.Errorf("Compare with a bank that is not covered: got %v, want every PCR but 10", got)
	}
}

func lastEvent(b *eventlogtest.Builder) []byte {
	o := b.Offsets()
	return b.Bytes()[o[len(o)-2]:]
}

// TestCompareFindsTampering changes a real log while the TPM holds what the true one says.
func TestCompareFindsTampering(t *testing.T) {
	one := func(pcr int, k eventlog.MismatchKind) map[int]eventlog.MismatchKind {
		return map[int]eventlog.MismatchKind{pcr: k}
	}
	drop := func(b *eventlogtest.Builder, keep func(eventlogtest.Entry) bool) {
		var out []eventlogtest.Entry
		for _, e := range b.Entries {
			if keep(e) {
				out = append(out, e)
			}
		}
		b.Entries = out
	}
	for _, tt := range []struct {
		name   string
		tamper func(*eventlogtest.Builder)
		want   map[int]eventlog.MismatchKind
	}{
		{"nothing", func(*eventlogtest.Builder) {}, map[int]eventlog.MismatchKind{}},
		{"digest flipped", func(b *eventlogtest.Builder) { b.Entries[3].Digests[tpm.AlgSHA256][0] ^= 1 }, one(7, eventlog.ValueDiffers)},
		{"event dropped", func(b *eventlogtest.Builder) { b.Entries = b.Entries[:len(b.Entries)-1] }, one(5, eventlog.ValueDiffers)},
		{"events swapped", func(b *eventlogtest.Builder) { b.Entries[0], b.Entries[1] = b.Entries[1], b.Entries[0] }, one(0, eventlog.ValueDiffers)},
		{"moved to another PCR", func(b *eventlogtest.Builder) { b.Entries[3].PCR = 6 }, map[int]eventlog.MismatchKind{6: eventlog.ValueDiffers, 7: eventlog.ValueDiffers}},
		{"all events of a PCR hidden", func(b *eventlogtest.Builder) {
			drop(b, func(e eventlogtest.Entry) bool { return e.PCR != 14 })
		}, one(14, eventlog.NoEvents)},
		{"measurement retyped to EV_NO_ACTION", func(b *eventlogtest.Builder) { b.Entries[3].Type = eventlog.NoAction }, one(7, eventlog.ValueDiffers)},
		{"event appended", func(b *eventlogtest.Builder) { b.Add(4, 0x1234, []byte("x")) }, one(4, eventlog.ValueDiffers)},
		{"event in an unused PCR", func(b *eventlogtest.Builder) { b.Add(13, eventlog.IPLType, []byte("x")) }, one(13, eventlog.ValueDiffers)},
		{"false locality", func(b *eventlogtest.Builder) {
			e := eventlogtest.Entry{Type: eventlog.NoAction, Data: locality(3)}
			b.Entries = append([]eventlogtest.Entry{e}, b.Entries...)
		}, one(0, eventlog.ValueDiffers)},
		{"false H-CRTM", func(b *eventlogtest.Builder) { b.Entries[0].Type = eventlog.EFIHCRTM }, one(0, eventlog.ValueDiffers)},
		// Type and data aren't in any digest: replay can't see these two, the rules on data must.
		{"retyped", func(b *eventlogtest.Builder) { b.Entries[3].Type = eventlog.EFIVariableAuthority }, map[int]eventlog.MismatchKind{}},
		{"data altered", func(b *eventlogtest.Builder) { b.Entries[3].Data[len(b.Entries[3].Data)-1] ^= 1 }, map[int]eventlog.MismatchKind{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := open(t, "good")
			held := b.PCRs(tpm.AlgSHA256)
			tt.tamper(b)
			if d := cmp.Diff(tt.want, compared(parse(t, b.Bytes()), held)); d != "" {
				t.Errorf("Compare (-want +got):\n%s", d)
			}
		})
	}
}

// TestCompareResetValues is about PCRs without events: they must hold what a TPM resets them to.
func TestCompareResetValues(t *testing.T) {
	zeros, ones := make([]byte, 32), bytes.Repeat([]byte{0xff}, 32)
	three := append(make([]byte, 31), 3)
	plain := small(tpm.AlgSHA256)
	late := eventlogtest.New(tpm.AlgSHA256).AddLocality(3).Add(7, eventlog.Separator, make([]byte, 4))
	launch := small(tpm.AlgSHA256).Add(17, eventlog.TXTHashStart, []byte("a"))
	for _, tt := range []struct {
		name  string
		log   *eventlogtest.Builder
		pcr   int
		value []byte
		want  int // mismatches
	}{
		{"PCR 8 of zeros", plain, 8, zeros, 0},
		{"PCR 8 of ones", plain, 8, ones, 1},
		{"PCR 8 empty", plain, 8, []byte{}, 1},
		{"PCR 8 too short", plain, 8, zeros[:20], 1},
		{"PCR 10 is left to IMA", plain, 10, ones, 0},
		{"PCR 23 of zeros", plain, 23, zeros, 0},
		{"PCR 17 of ones", plain, 17, ones, 0},
		{"PCR 17 of zeros without launch", plain, 17, zeros, 1},
		{"PCR 22 of zeros after a launch", launch, 22, zeros, 0},
		{"PCR 22 of ones after a launch", launch, 22, ones, 1},
		{"PCR 0 of zeros", eventlogtest.New(tpm.AlgSHA256), 0, zeros, 0},
		{"PCR 0 of its locality", late, 0, three, 0},
		{"PCR 0 of zeros, locality 3", late, 0, zeros, 1},
	} {
		bank := tpm.Bank{Alg: tpm.AlgSHA256}
		bank.Values[tt.pcr] = tt.value
		got := parse(t, tt.log.Bytes()).Compare(&bank)
		if len(got) != tt.want || tt.want == 1 && got[0].Kind != eventlog.NoEvents {
			t.Errorf("%s: Compare: got %v, want %d of kind %v", tt.name, got, tt.want, eventlog.NoEvents)
		}
	}
}

func TestMismatchString(t *testing.T) {
	for _, tt := range []struct {
		m    eventlog.Mismatch
		want string
	}{
		{eventlog.Mismatch{PCR: 4, Kind: eventlog.ValueDiffers, Replayed: []byte{1}, Quoted: []byte{2}}, "PCR 4: value differs: quoted 02, log gives 01"},
		{eventlog.Mismatch{PCR: 8, Kind: eventlog.NoEvents, Replayed: []byte{0}, Quoted: []byte{2}}, "PCR 8: value without events: quoted 02, reset value 00"},
		{eventlog.Mismatch{PCR: 9, Kind: eventlog.NoBank, Quoted: []byte{2}}, "PCR 9: bank not in log: quoted 02"},
	} {
		if got := tt.m.String(); got != tt.want {
			t.Errorf("String: got %q, want %q", got, tt.want)
		}
	}
}
