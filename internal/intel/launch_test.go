package intel

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/eventlog/eventlogtest"
	"touchstone.dev/touchstone/internal/tpm"
)

func TestFromLog(t *testing.T) {
	build := func() *eventlogtest.Builder { return eventlogtest.New(tpm.AlgSHA256) }
	wide := []byte("B\x00o\x00o\x00t\x00 \x00G\x00u\x00a\x00r\x00d\x00 \x00M\x00e\x00a\x00s\x00u\x00r\x00e\x00d\x00 \x00I\x00B\x00B\x00\x00\x00")
	for _, tt := range []struct {
		name                     string
		log                      *eventlogtest.Builder
		want                     Launch
		rooted, guarded, dynamic Answer
		line                     string
	}{
		{
			"plain firmware", build().Add(0, eventlog.SCRTMVersion, []byte("1.0\x00")).AddSeparators(),
			Launch{Locality: eventlog.NoLocality}, No, No, No,
			"startup locality not named, measured by hardware no, Boot Guard measured no, dynamic launch no (0 events)",
		},
		{
			"Boot Guard", build().AddLocality(3).Add(0, eventlog.SCRTMContents, []byte("Boot Guard Measured S-CRTM\x00")).AddSeparators(),
			Launch{Locality: 3, Marks: []Mark{{2, 0, MarkACM, "Boot Guard Measured S-CRTM"}}}, Yes, Yes, No,
			"startup locality 3, measured by hardware yes, Boot Guard measured yes, dynamic launch no (0 events)",
		},
		{
			"initial boot block in UTF-16", build().AddLocality(3).Add(0, eventlog.SCRTMContents, wide),
			Launch{Locality: 3, Marks: []Mark{{2, 0, MarkIBB, "Boot Guard Measured IBB"}}}, Yes, Yes, No,
			"startup locality 3, measured by hardware yes, Boot Guard measured yes, dynamic launch no (0 events)",
		},
		{
			"FIT", build().AddLocality(3).Add(0, eventlog.SCRTMContents, []byte("FIT Type 0x07 Measured S-CRTM")),
			Launch{Locality: 3, Marks: []Mark{{2, 0, MarkFIT, "FIT Type 0x07 Measured S-CRTM"}}}, Yes, Yes, No,
			"startup locality 3, measured by hardware yes, Boot Guard measured yes, dynamic launch no (0 events)",
		},
		{
			"label without locality", build().Add(0, eventlog.SCRTMContents, []byte("Boot Guard Measured S-CRTM\x00")),
			Launch{Locality: eventlog.NoLocality, Marks: []Mark{{1, 0, MarkACM, "Boot Guard Measured S-CRTM"}}}, No, Unknown, No,
			"startup locality not named, measured by hardware no, Boot Guard measured unknown, dynamic launch no (0 events)",
		},
		{
			"label in PCR 7 only", build().AddLocality(3).Add(7, eventlog.EFIVariableDriverConfig, []byte("Boot Guard Measured S-CRTM\x00")),
			Launch{Locality: 3, Marks: []Mark{{2, 7, MarkACM, "Boot Guard Measured S-CRTM"}}}, Yes, Unknown, No,
			"startup locality 3, measured by hardware yes, Boot Guard measured unknown, dynamic launch no (0 events)",
		},
		{
			"label in the wrong PCR", build().Add(4, eventlog.SCRTMContents, []byte("Boot Guard Measured S-CRTM\x00")),
			Launch{Locality: eventlog.NoLocality}, No, No, No,
			"startup locality not named, measured by hardware no, Boot Guard measured no, dynamic launch no (0 events)",
		},
		{
			"debug ACM", build().AddLocality(3).Add(0, eventlog.SCRTMContents, []byte("Boot Guard Debug Measured S-CRTM\x00")),
			Launch{Locality: 3, Marks: []Mark{{2, 0, MarkDebugACM, "Boot Guard Debug Measured S-CRTM"}}}, Yes, No, No,
			"startup locality 3, measured by hardware yes, Boot Guard measured no, dynamic launch no (0 events)",
		},
		{
			"H-CRTM", build().Add(0, eventlog.EFIHCRTM, []byte("HCRTM")).AddSeparators(),
			Launch{Locality: 4, HCRTM: true}, Yes, Unknown, No,
			"startup locality 4, measured by hardware yes, Boot Guard measured unknown, dynamic launch no (0 events)",
		},
		{
			"TXT", build().AddLocality(0).AddSeparators().Add(17, eventlog.TXTHashStart, nil).Add(17, eventlog.TXTMLEHash, nil).
				Add(18, eventlog.TXTSinitPubKeyHash, nil).Add(4, eventlog.TXTMLEHash, nil),
			Launch{
				Dynamic: []DynamicEvent{{10, 17, eventlog.TXTHashStart}, {11, 17, eventlog.TXTMLEHash}, {12, 18, eventlog.TXTSinitPubKeyHash}},
				Stray:   []DynamicEvent{{13, 4, eventlog.TXTMLEHash}},
			}, No, No, Yes,
			"startup locality 0, measured by hardware no, Boot Guard measured no, dynamic launch yes (3 events), 1 TXT events outside PCR 17 to 22",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log, err := eventlog.Parse(tt.log.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			got := FromLog(log.Events)
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("FromLog (-want +got):\n%s", d)
			}
			if got.Locality != log.Locality {
				t.Errorf("Locality: got %d, eventlog says %d", got.Locality, log.Locality)
			}
			if a := got.HardwareRooted(); a != tt.rooted {
				t.Errorf("HardwareRooted: got %v, want %v", a, tt.rooted)
			}
			if a := got.BootGuardMeasured(); a != tt.guarded {
				t.Errorf("BootGuardMeasured: got %v, want %v", a, tt.guarded)
			}
			if a := got.DynamicLaunch(); a != tt.dynamic {
				t.Errorf("DynamicLaunch: got %v, want %v", a, tt.dynamic)
			}
			if s := got.String(); s != tt.line {
				t.Errorf("String: got %q, want %q", s, tt.line)
			}
		})
	}
}

// TestFromLogIgnoresLateLocality: events that eventlog.Parse didn't check must not fool it either.
func TestFromLogIgnoresLateLocality(t *testing.T) {
	three := eventlog.Event{Type: eventlog.NoAction, Data: []byte("StartupLocality\x00\x03")}
	separator := eventlog.Event{Type: eventlog.Separator, Data: make([]byte, 4)}
	elsewhere := three
	elsewhere.PCR = 1
	odd := three
	odd.Data = []byte("StartupLocality\x00\x02")
	for name, events := range map[string][]eventlog.Event{
		"late": {separator, three}, "another PCR": {elsewhere, separator}, "locality 2": {odd, separator}, "nothing": nil,
	} {
		if got := FromLog(events).Locality; got != eventlog.NoLocality {
			t.Errorf("FromLog, %s: got locality %d, want %d", name, got, eventlog.NoLocality)
		}
	}
}
