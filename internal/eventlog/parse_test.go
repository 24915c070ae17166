package eventlog_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/eventlog/eventlogtest"
	"touchstone.dev/touchstone/internal/tpm"
)

// small returns a well-formed log that a case can spoil.
func small(algs ...tpm.Alg) *eventlogtest.Builder {
	return eventlogtest.New(algs...).
		Add(0, eventlog.SCRTMVersion, []byte("1.0\x00")).
		Add(7, eventlog.EFIAction, []byte("Calling EFI Application from Boot Option"))
}

// locality is the data of a StartupLocality event.
func locality(l byte) []byte { return append([]byte("StartupLocality\x00"), l) }

// patch returns b with the little-endian value v written at byte off from the start, or from the end if off is negative.
func patch(b []byte, off int, v uint32) []byte {
	b = slices.Clone(b)
	if off < 0 {
		off += len(b)
	}
	binary.LittleEndian.PutUint32(b[off:], v)
	return b
}

func TestParseRefuses(t *testing.T) {
	sha256 := small(tpm.AlgSHA256).Bytes()
	offsets := small(tpm.AlgSHA256).Offsets()
	first, last := offsets[1], offsets[2]
	header := func(h []byte) []byte {
		b := small(tpm.AlgSHA256)
		b.Header = h
		return b.Bytes()
	}
	spec := func(banks ...eventlogtest.Bank) []byte {
		return (&eventlogtest.Builder{Agile: true, Banks: banks}).Bytes()
	}
	for _, tt := range []struct {
		name  string
		log   []byte
		index int // of the ParseError, or -1 when the log as a whole is refused
		want  error
	}{
		{"empty", nil, -1, eventlog.ErrEmpty},
		{"huge", make([]byte, eventlog.MaxLog+1), -1, eventlog.ErrTooLarge},
		{"zeros only", make([]byte, 4096), 0, eventlog.ErrTrailing},
		{"ones only", bytes.Repeat([]byte{0xff}, 4096), 0, eventlog.ErrTrailing},
		{"extra byte", append(slices.Clone(sha256), 7), 3, eventlog.ErrTrailing},
		{"extra text", append(slices.Clone(sha256), "this is no event at all, only text"...), 3, eventlog.ErrTrailing},
		{"padding of zeros", append(slices.Clone(sha256), make([]byte, 100)...), 3, eventlog.ErrTrailing},
		{"padding of ones", append(slices.Clone(sha256), bytes.Repeat([]byte{0xff}, 100)...), 3, eventlog.ErrTrailing},
		{"one zero byte", append(slices.Clone(sha256), 0), 3, eventlog.ErrTrailing},
		{"PCR 24", patch(sha256, last, 24), 2, eventlog.ErrPCRIndex},
		{"PCR 0xffffffff", patch(sha256, last, 0xffffffff), 2, eventlog.ErrPCRIndex},
		{"PCR 0x80000000", patch(sha256, first, 0x80000000), 1, eventlog.ErrPCRIndex},
		{"no digests", patch(sha256, first+8, 0), 1, eventlog.ErrDigests},
		{"too many digests", patch(sha256, first+8, 2), 1, eventlog.ErrDigests},
		{"digest count bomb", patch(sha256, first+8, 0xffffffff), 1, eventlog.ErrDigests},
		{"undeclared algorithm", patch(sha256, first+12, uint32(tpm.AlgSHA1)), 1, eventlog.ErrDigests},
		{"data size bomb", patch(sha256, first+8+4+2+32, 0xffffffff), 1, eventlog.ErrTruncated},
		{"data above the limit", small(tpm.AlgSHA256).Add(4, eventlog.EFIAction, make([]byte, eventlog.MaxData+1)).AddSeparators().Bytes(), 3, eventlog.ErrTooLarge},
		{"data longer than the log", patch(sha256, first+8+4+2+32, 1000), 1, eventlog.ErrTruncated},
		{"header size bomb", patch(sha256, 28, 0x7fffffff), 0, eventlog.ErrTruncated},
		{"no algorithms", spec(), 0, eventlog.ErrSpecID},
		{"too many algorithms", spec(slices.Repeat([]eventlogtest.Bank{{Alg: 1, Size: 20}}, 17)...), 0, eventlog.ErrSpecID},
		{"algorithm count bomb", header([]byte("Spec ID Event03\x00\x00\x00\x00\x00\x00\x02\x00\x02\xff\xff\xff\xff\x00")), 0, eventlog.ErrSpecID},
		{"algorithm list cut short", header([]byte("Spec ID Event03\x00\x00\x00\x00\x00\x00\x02\x00\x02\x02\x00\x00\x00\x0b\x00\x20\x00\x00")), 0, eventlog.ErrSpecID},
		{"no list", header([]byte("Spec ID Event03\x00\x00\x00\x00\x00\x00\x02\x00\x02\x02\x00")), 0, eventlog.ErrSpecID},
		{"header cut short", header([]byte("Spec ID Event03\x00\x00\x00")), 0, eventlog.ErrSpecID},
		{"unknown header", header([]byte("Spec ID Event04\x00\x00\x00\x00\x00\x00\x02\x00\x02\x00")), 0, eventlog.ErrSpecID},
		{"algorithm twice", spec(eventlogtest.Bank{Alg: tpm.AlgSHA256, Size: 32}, eventlogtest.Bank{Alg: tpm.AlgSHA256, Size: 32}), 0, eventlog.ErrSpecID},
		{"SHA-256 of 20 bytes", spec(eventlogtest.Bank{Alg: tpm.AlgSHA256, Size: 20}), 0, eventlog.ErrSpecID},
		{"unknown algorithm of 0 bytes", spec(eventlogtest.Bank{Alg: 0x12, Size: 0}), 0, eventlog.ErrSpecID},
		{"unknown algorithm of 60000 bytes", spec(eventlogtest.Bank{Alg: 0x12, Size: 60000}), 0, eventlog.ErrSpecID},
		{"UINTN of 12 bytes", patch(sha256, 32+20, 0x03000002), 0, eventlog.ErrSpecID},
		{"vendor information too short", patch(sha256, 32+29, 0x01000000), 0, eventlog.ErrSpecID},
		{"second header", small(tpm.AlgSHA256).Add(0, eventlog.NoAction, sha256[32:first]).Bytes(), 3, eventlog.ErrSpecID},
		{"header in PCR 1", patch(sha256, 0, 1), 0, eventlog.ErrSpecID},
		{"locality after a measurement", small(tpm.AlgSHA256).Add(0, eventlog.NoAction, locality(3)).Bytes(), 3, eventlog.ErrLocality},
		{"locality in PCR 1", eventlogtest.New(tpm.AlgSHA256).Add(1, eventlog.NoAction, locality(3)).Bytes(), 1, eventlog.ErrLocality},
		{"locality in no PCR", eventlogtest.New(tpm.AlgSHA256).Add(0xffffffff, eventlog.NoAction, locality(3)).Bytes(), 1, eventlog.ErrLocality},
		{"locality twice", eventlogtest.New(tpm.AlgSHA256).AddLocality(3).AddLocality(3).Bytes(), 2, eventlog.ErrLocality},
		{"locality 2", eventlogtest.New(tpm.AlgSHA256).AddLocality(2).Bytes(), 1, eventlog.ErrLocality},
		{"locality without value", eventlogtest.New(tpm.AlgSHA256).Add(0, eventlog.NoAction, locality(3)[:16]).Bytes(), 1, eventlog.ErrLocality},
		{"locality with two values", eventlogtest.New(tpm.AlgSHA256).Add(0, eventlog.NoAction, append(locality(3), 0)).Bytes(), 1, eventlog.ErrLocality},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log, err := eventlog.Parse(tt.log)
			if !errors.Is(err, tt.want) || log != nil {
				t.Fatalf("Parse: got %v, %v, want error %v", log, err, tt.want)
			}
			var at *eventlog.ParseError
			if errors.As(err, &at) != (tt.index >= 0) {
				t.Fatalf("Parse: error %v names an event: want %v", err, tt.index >= 0)
			}
			if at != nil && at.Index != tt.index {
				t.Errorf("Parse: error %v names event %d, want %d", err, at.Index, tt.index)
			}
		})
	}
}

// TestParseErrorIsTrailing: rubbish behind the log is ErrTrailing whatever it looks like; a well-formed event in the wrong place isn't.
func TestParseErrorIsTrailing(t *testing.T) {
	log := small(tpm.AlgSHA256).Bytes()
	for name, tt := range map[string]struct {
		log  []byte
		want bool
	}{
		"first event cut":     {log[:10], false},
		"event cut":           {log[:len(log)-1], true},
		"text":                {append(slices.Clone(log), "some text that is long enough"...), true},
		"size of 4 GB":        {append(slices.Clone(log), patch(lastEvent(small(tpm.AlgSHA256)), 8+4+2+32, 0xffffffff)...), true},
		"foreign digest":      {append(slices.Clone(log), lastEvent(small(tpm.AlgSHA512))...), true},
		"padding":             {append(slices.Clone(log), 0, 0, 0), true},
		"second locality":     {eventlogtest.New(tpm.AlgSHA256).AddLocality(3).AddLocality(3).Bytes(), false},
		"second header event": {small(tpm.AlgSHA256).Add(0, eventlog.NoAction, []byte("Spec ID Event03\x00")).Bytes(), false},
	} {
		_, err := eventlog.Parse(tt.log)
		if err == nil || errors.Is(err, eventlog.ErrTrailing) != tt.want {
			t.Errorf("Parse, %s: got error %v, want ErrTrailing: %v", name, err, tt.want)
		}
	}
}

func TestParseErrorSaysWhere(t *testing.T) {
	b := small(tpm.AlgSHA256)
	offsets := b.Offsets()
	_, err := eventlog.Parse(patch(b.Bytes(), offsets[2], 99))
	var at *eventlog.ParseError
	if !errors.As(err, &at) {
		t.Fatalf("Parse: got error %v, want a ParseError", err)
	}
	if at.Index != 2 || at.Offset != offsets[2] {
		t.Errorf("ParseError: got event %d at byte %d, want event 2 at byte %d", at.Index, at.Offset, offsets[2])
	}
	want := "event 2 at byte 119: PCR index out of range: 0x63 in an event of type EV_EFI_ACTION, want 0 to 23"
	if err.Error() != want {
		t.Errorf("Error: got %q, want %q", err, want)
	}
}

// TestParseTruncatedAnywhere cuts logs at every byte: only a cut between two events gives a log again, a shorter one.
func TestParseTruncatedAnywhere(t *testing.T) {
	for name, b := range map[string]*eventlogtest.Builder{
		"agile":  small(tpm.AlgSHA1, tpm.AlgSHA256, tpm.AlgSHA512),
		"legacy": eventlogtest.NewLegacy().Add(0, eventlog.SCRTMVersion, []byte("1.0\x00")).Add(7, eventlog.EFIAction, []byte("x")),
	} {
		log, offsets := b.Bytes(), b.Offsets()
		for n := 1; n < len(log); n++ {
			l, err := eventlog.Parse(log[:n])
			events := slices.Index(offsets, n)
			switch {
			case events < 0 && err == nil:
				t.Errorf("%s: Parse of %d bytes: got %d events, want an error", name, n, len(l.Events))
			case events > 0 && (err != nil || len(l.Events) != events):
				t.Errorf("%s: Parse of %d bytes: got %v, want %d events", name, n, err, events)
			}
		}
	}
}

func TestParseTooManyEvents(t *testing.T) {
	one := eventlogtest.NewLegacy().Add(5, eventlog.EFIAction, nil).Bytes()
	_, err := eventlog.Parse(bytes.Repeat(one, eventlog.MaxEvents))
	if err != nil {
		t.Errorf("Parse of %d events: %v", eventlog.MaxEvents, err)
	}
	if _, err = eventlog.Parse(bytes.Repeat(one, eventlog.MaxEvents+1)); !errors.Is(err, eventlog.ErrTooLarge) {
		t.Errorf("Parse of %d events: got error %v, want %v", eventlog.MaxEvents+1, err, eventlog.ErrTooLarge)
	}
}

func TestParseHeader(t *testing.T) {
	b := eventlogtest.New(tpm.AlgSHA1)
	b.Banks = append(b.Banks, eventlogtest.Bank{Alg: 0x12, Size: 32}, eventlogtest.Bank{Alg: tpm.AlgSHA384, Size: 48})
	b.VendorInfo = []byte("ACME")
	b.AddLocality(3).Add(0, eventlog.SCRTMVersion, []byte("1.0\x00"))
	log, err := eventlog.Parse(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	got := *log
	got.Events = nil
	want := eventlog.Log{
		Algs: []tpm.Alg{tpm.AlgSHA1, tpm.AlgSHA384}, Skipped: []tpm.Alg{0x12}, Agile: true,
		Spec: "2.0 errata 105", Locality: 3, VendorInfo: []byte("ACME"),
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Parse (-want +got):\n%s", d)
	}
	e := log.Events[2]
	if len(e.Digests) != 2 || e.Digest(0x12) != nil || len(e.Digest(tpm.AlgSHA384)) != 48 {
		t.Errorf("digests of event 2: got %v, want sha1 and sha384", e.Digests)
	}
}

func TestParseKeepsUnknownTypes(t *testing.T) {
	b := small(tpm.AlgSHA256).Add(4, 0x1234, []byte("what is this")).Add(17, eventlog.TXTSecureLaunch, nil).Add(0xffffffff, eventlog.NoAction, []byte("x"))
	log, err := eventlog.Parse(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		PCR   int
		Name  string
		Known bool
	}
	var got []row
	for _, e := range log.Events[3:] {
		got = append(got, row{e.PCR, e.Type.String(), e.Type.Known()})
	}
	want := []row{{4, "0x00001234", false}, {17, "TXT_SLAUNCH", true}, {eventlog.NoPCR, "EV_NO_ACTION", true}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
}
