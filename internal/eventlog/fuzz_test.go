package eventlog_test

import (
	"errors"
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"
	"unicode/utf8"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/eventlog/eventlogtest"
	"touchstone.dev/touchstone/internal/tpm"
)

// FuzzParse parses, replays, compares and decodes everything. Whatever parses must be consistent, and nothing may panic.
func FuzzParse(f *testing.F) {
	for _, seed := range realSeeds(f) {
		f.Add(seed)
	}
	f.Add(small(tpm.AlgSHA1, tpm.AlgSHA512).Add(4, 0x1234, []byte("x")).Bytes())
	f.Add(eventlogtest.NewLegacy().AddLocality(3).AddSeparators().Bytes())
	f.Add(eventlogtest.New(tpm.AlgSHA256).Add(0, eventlog.EFIHandoffTables2, []byte("\x01a\x00\x00\x00\x00\x00\x00\x00\x00")).Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		log, err := eventlog.Parse(b)
		if err != nil {
			var at *eventlog.ParseError
			if errors.As(err, &at) && (at.Offset < 0 || at.Offset >= len(b)) {
				t.Errorf("ParseError: offset %d of %d", at.Offset, len(b))
			}
			return
		}
		for i := range log.Events {
			decodeAll(t, &log.Events[i])
		}
		for _, a := range log.Algs {
			bank, err := log.Replay(a)
			if err != nil {
				continue
			}
			if m := log.Compare(&bank); m != nil {
				t.Errorf("Compare(%v) with its own replay: got %v", a, m)
			}
		}
	})
}

// TestDecodeAllRealEvents runs on whole logs what the fuzz target runs on single events.
func TestDecodeAllRealEvents(t *testing.T) {
	for _, name := range []string{"good", "banks3", "mok-enrolled", "uki-own"} {
		log := parse(t, open(t, name).Bytes())
		for i := range log.Events {
			decodeAll(t, &log.Events[i])
		}
	}
}

// realSeeds returns logs of one real event each, the shortest of its type and PCR: the fuzzing engine wastes its time on whole logs.
func realSeeds(f *testing.F) [][]byte {
	type place struct {
		pcr int
		typ eventlog.Type
	}
	shortest := map[place][]byte{}
	for _, name := range []string{"good", "banks3", "mok-enrolled", "uki-own"} {
		raw, err := os.ReadFile("../../test/boots/corpus/" + name + "/eventlog.bin")
		if err != nil {
			f.Fatal(err)
		}
		log, err := eventlog.Parse(raw)
		if err != nil {
			f.Fatal(err)
		}
		end, header := len(raw), raw[:log.Events[1].Offset]
		for _, e := range slices.Backward(log.Events[1:]) {
			p := place{e.PCR, e.Type}
			if old, ok := shortest[p]; !ok || len(header)+end-e.Offset < len(old) {
				shortest[p] = append(slices.Clone(header), raw[e.Offset:end]...)
			}
			end = e.Offset
		}
	}
	return slices.Collect(maps.Values(shortest))
}

// decodeAll runs every decoder on e, whatever its type.
func decodeAll(t testing.TB, e *eventlog.Event) {
	line := eventlog.Describe(e)
	if utf8.RuneCountInString(line) > 200 {
		t.Errorf("Describe: %d characters", utf8.RuneCountInString(line))
	}
	for _, r := range line {
		if !strconv.IsPrint(r) && r != '\u3000' {
			t.Errorf("Describe: %q is not printable", line)
		}
	}
	for _, d := range e.Digests {
		if e.DataMatches(d.Alg) && e.Measures() == eventlog.MeasuresNothing {
			t.Error("data of an event that measures nothing matches")
		}
		e.VariableDataMatches(d.Alg)
	}
	for _, typ := range []eventlog.Type{
		e.Type, eventlog.EFIVariableAuthority, eventlog.EFIBootServicesApplication, eventlog.EFIPlatformFirmwareBlob2, eventlog.EFIHandoffTables,
		eventlog.EFIHandoffTables2, eventlog.IPLType, eventlog.EventTag, eventlog.EFIGPT, eventlog.Separator, eventlog.SCRTMVersion,
		eventlog.EFIAction, eventlog.PostCode,
	} {
		c := *e
		c.Type = typ
		c.Variable()     //nolint:errcheck // only a panic matters here
		c.Image()        //nolint:errcheck // as above
		c.FirmwareBlob() //nolint:errcheck // as above
		c.IPL()          //nolint:errcheck // as above
		c.TaggedEvent()  //nolint:errcheck // as above
		c.GPT()          //nolint:errcheck // as above
		c.Separator()    //nolint:errcheck // as above
		c.SCRTMVersion() //nolint:errcheck // as above
		c.ActionText()   //nolint:errcheck // as above
		c.PostCodeText() //nolint:errcheck // as above
		c.Measures()
		eventlog.Describe(&c)
	}
}
