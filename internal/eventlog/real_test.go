package eventlog

import (
	"fmt"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/tpm"
)

// TestRealLogsDataMatches checks, for every event of the real logs, that what Measures says is what the digest shows.
func TestRealLogsDataMatches(t *testing.T) {
	for _, name := range realLogs(t) {
		log, err := Parse(readLog(t, name))
		if err != nil {
			t.Fatalf("Parse(%s): %v", name, err)
		}
		for i := range log.Events {
			e := &log.Events[i]
			for _, d := range e.Digests {
				matches := e.DataMatches(d.Alg)
				if want := e.Measures() == MeasuresData; matches != want {
					t.Errorf("%s: event %d, PCR %d, %v: DataMatches(%v): got %v, Measures is %v", name, i, e.PCR, Describe(e), d.Alg, matches, e.Measures())
				}
			}
			if !e.Type.Known() {
				t.Errorf("%s: event %d: type %v is not known", name, i, e.Type)
			}
		}
	}
}

// TestRealLogsDescribe holds a few lines of the real logs against what a person should read.
func TestRealLogsDescribe(t *testing.T) {
	for _, tt := range []struct {
		log   string
		event int
		want  string
	}{
		{"good", 4, "EV_EFI_VARIABLE_DRIVER_CONFIG: SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c, 1 bytes"},
		{"good", 9, "EV_SEPARATOR: normal (00000000)"},
	} {
		log, err := Parse(readLog(t, "testdata/"+tt.log+".bin"))
		if err != nil {
			t.Fatal(err)
		}
		if got := Describe(&log.Events[tt.event]); got != tt.want {
			t.Errorf("Describe(%s, %d): got %q, want %q", tt.log, tt.event, got, tt.want)
		}
	}
	var b strings.Builder
	log, _ := Parse(readLog(t, "testdata/uki-own.bin"))
	for i := range log.Events {
		e := &log.Events[i]
		fmt.Fprintf(&b, "%2d %2d %-8v %v %s\n", i, e.PCR, e.Measures(), e.DataMatches(tpm.AlgSHA256), Describe(e))
	}
	t.Log(b.String())
}
