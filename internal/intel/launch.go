package intel

import (
	"fmt"
	"strings"

	"touchstone.dev/touchstone/internal/eventlog"
)

// MarkKind is what an event of the log says of Boot Guard.
type MarkKind int8

// The kinds of marks. The texts are those of Intel's reference code, which the firmware vendors use.
const (
	// MarkACM: "Boot Guard Measured S-CRTM", the ACM measured the initial boot block into PCR 0, or its authority into PCR 7.
	MarkACM MarkKind = iota + 1
	// MarkDebugACM: "Boot Guard Debug Measured S-CRTM", the ACM isn't a production one: anybody's firmware may follow.
	MarkDebugACM
	// MarkIBB: "Boot Guard Measured IBB", the initial boot block by itself.
	MarkIBB
	// MarkFIT: "FIT Type 0x07 Measured S-CRTM", a part of the firmware interface table, measured by the ACM.
	MarkFIT
)

// String names the kind for people.
func (k MarkKind) String() string {
	switch k {
	case MarkACM:
		return "Boot Guard ACM measured the firmware"
	case MarkDebugACM:
		return "Boot Guard debug ACM measured the firmware"
	case MarkIBB:
		return "Boot Guard measured the initial boot block"
	case MarkFIT:
		return "ACM measured a part of the firmware interface table"
	}
	return "unknown mark"
}

// Mark is an event whose text speaks of Boot Guard. The text is a label: nothing covers it, but its PCR and its digest are proven.
type Mark struct {
	Event int // index in the log
	PCR   int
	Kind  MarkKind
	Text  string
}

// DynamicEvent is a measurement of a dynamic launch, into PCR 17 to 22.
type DynamicEvent struct {
	Event int
	PCR   int
	Type  eventlog.Type
}

// Launch is what the firmware log says of how the machine started. It holds once the log's replay agrees with the quoted PCRs 0 and 17 to 22.
type Launch struct {
	// Locality of TPM2_Startup: 0, 3, 4 (H-CRTM), or eventlog.NoLocality. Replay proves it: it is in the value of PCR 0.
	Locality int
	// HCRTM: the first measurement into PCR 0 is one of a hardware CRTM.
	HCRTM   bool
	Marks   []Mark
	Dynamic []DynamicEvent
	// Stray are TXT events outside PCR 17 to 22, where nothing should write them.
	Stray []DynamicEvent
}

// FromLog reads what the events say of Boot Guard and TXT.
func FromLog(events []eventlog.Event) Launch {
	out := Launch{Locality: eventlog.NoLocality}
	measured := false
	for i := range events {
		e := &events[i]
		if l, ok := e.StartupLocality(); ok && e.PCR == 0 && !measured && (l == 0 || l == 3 || l == 4) {
			out.Locality = l
		}
		if !e.Extends() {
			continue
		}
		if e.PCR == 0 && !measured {
			measured = true
			if e.Type == eventlog.EFIHCRTM {
				out.HCRTM, out.Locality = true, 4
			}
		}
		d := DynamicEvent{Event: e.Index, PCR: e.PCR, Type: e.Type}
		switch {
		case e.PCR >= 17 && e.PCR <= 22:
			out.Dynamic = append(out.Dynamic, d)
		case e.Type.TXT():
			out.Stray = append(out.Stray, d)
		case e.PCR == 0 || e.PCR == 7:
			if m, ok := mark(e); ok {
				out.Marks = append(out.Marks, m)
			}
		}
	}
	return out
}

// mark recognises an event that speaks of Boot Guard.
func mark(e *eventlog.Event) (Mark, bool) {
	switch e.Type {
	case eventlog.SCRTMContents, eventlog.SCRTMVersion, eventlog.PostCode, eventlog.PostCode2, eventlog.EFIVariableDriverConfig, eventlog.EFIHCRTM:
	default:
		return Mark{}, false
	}
	text, err := e.Text()
	if err != nil {
		return Mark{}, false
	}
	m := Mark{Event: e.Index, PCR: e.PCR, Text: text}
	switch {
	case text == "Boot Guard Measured S-CRTM":
		m.Kind = MarkACM
	case text == "Boot Guard Debug Measured S-CRTM":
		m.Kind = MarkDebugACM
	case text == "Boot Guard Measured IBB":
		m.Kind = MarkIBB
	case len(text) == len("FIT Type 0x00 Measured S-CRTM") && strings.HasPrefix(text, "FIT Type 0x") && strings.HasSuffix(text, " Measured S-CRTM"):
		m.Kind = MarkFIT
	default:
		return Mark{}, false
	}
	return m, true
}

// HardwareRooted tells whether measuring began in hardware: the TPM was started from locality 3 or 4, which on Intel machines only an ACM and the
// processor's microcode can use. No doesn't deny Boot Guard: under a profile that only verifies, the firmware itself starts the TPM.
// A virtual machine's TPM can be started from any locality: the answer is worth what the TPM's endorsement certificate is.
func (l Launch) HardwareRooted() Answer { return answer(l.Locality == 3 || l.Locality == 4) }

// DynamicLaunch tells whether the log has measurements of a dynamic launch (TXT). No is proven when PCR 17 is quoted at its reset value.
func (l Launch) DynamicLaunch() Answer { return answer(len(l.Dynamic) > 0) }

// BootGuardMeasured tells whether the ACM measured the firmware, by locality and label together. Unknown: one without the other.
func (l Launch) BootGuardMeasured() Answer {
	acm := false
	for _, m := range l.Marks {
		switch {
		case m.Kind == MarkDebugACM:
			return No
		case m.PCR == 0:
			acm = true
		}
	}
	switch rooted := l.HardwareRooted() == Yes; {
	case rooted && acm:
		return Yes
	case !rooted && !acm:
		return No
	}
	return Unknown
}

// String is one line for people.
func (l Launch) String() string {
	locality := "not named"
	if l.Locality != eventlog.NoLocality {
		locality = fmt.Sprint(l.Locality)
	}
	s := fmt.Sprintf("startup locality %s, measured by hardware %v, Boot Guard measured %v, dynamic launch %v (%d events)",
		locality, l.HardwareRooted(), l.BootGuardMeasured(), l.DynamicLaunch(), len(l.Dynamic))
	if len(l.Stray) > 0 {
		s += fmt.Sprintf(", %d TXT events outside PCR 17 to 22", len(l.Stray))
	}
	return s
}
