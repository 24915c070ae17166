package eventlog_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"unicode/utf8"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/eventlog/eventlogtest"
	"touchstone.dev/touchstone/internal/tpm"
)

// FuzzParse parses, replays, compares and decodes everything. Whatever parses must be consistent, and nothing may panic.
func FuzzParse(f *testing.F) {
	names, err := filepath.Glob("testdata/*.bin")
	if err != nil || len(names) == 0 {
		f.Fatalf("no logs in testdata: %v", err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
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

// decodeAll runs every decoder on e, whatever its type.
func decodeAll(t *testing.T, e *eventlog.Event) {
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
		c.Image()        //nolint:errcheck
		c.FirmwareBlob() //nolint:errcheck
		c.IPL()          //nolint:errcheck
		c.TaggedEvent()  //nolint:errcheck
		c.GPT()          //nolint:errcheck
		c.Separator()    //nolint:errcheck
		c.SCRTMVersion() //nolint:errcheck
		c.ActionText()   //nolint:errcheck
		c.PostCodeText() //nolint:errcheck
		c.Measures()
		eventlog.Describe(&c)
	}
}
