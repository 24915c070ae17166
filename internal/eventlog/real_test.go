package eventlog

import "testing"

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
		{"good", 24, `EV_EFI_BOOT_SERVICES_APPLICATION: \EFI\BOOT\BOOTX64.EFI, 1048504 bytes`},
		{"good", 39, "EV_IPL: grub_file /vmlinuz"},
		{"banks3", 46, "EV_EFI_ACTION: Exit Boot Services Invocation"},
		{"uki-own", 23, "EV_EFI_GPT_EVENT: disk 11111111-2222-3333-4444-555555555555, 1 partitions"},
		{"uki-own", 25, "EV_IPL: systemd .linux"},
		{"uki-own", 33, "EV_EVENT_TAG: tag 0x8f3b22ed LOADED_IMAGE::LoadOptions"},
	} {
		log, err := Parse(readLog(t, corpus+tt.log+"/eventlog.bin"))
		if err != nil {
			t.Fatal(err)
		}
		if got := Describe(&log.Events[tt.event]); got != tt.want {
			t.Errorf("Describe(%s, %d): got %q, want %q", tt.log, tt.event, got, tt.want)
		}
	}
}
