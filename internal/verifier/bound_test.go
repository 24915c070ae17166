package verifier

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"testing"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/eventlog/eventlogtest"
)

// maxVerdict is what the verdict on the most hostile worker may take as JSON: AIAS keeps one of each node.
const maxVerdict = 1 << 20

// TestHostileLogsGiveBoundedVerdicts: a worker that fills its log with thousands of bad events, all extended, gets a verdict that a person can
// read and AIAS can keep.
func TestHostileLogsGiveBoundedVerdicts(t *testing.T) {
	for _, tt := range []struct {
		name string
		kind eventlog.Type
		pcr  uint32
		data func(i int) []byte
	}{
		{"unknown types", 0x1234, 0, func(i int) []byte { return fmt.Appendf(nil, "junk %d", i) }},
		{"types out of place", 0x0d, 4, func(i int) []byte { return fmt.Appendf(nil, "junk %d", i) }},
		{"images", 0x80000003, 4, func(i int) []byte { return binary.LittleEndian.AppendUint64(make([]byte, 24), uint64(i)) }},
		{"actions", 0x80000007, 7, func(i int) []byte { return fmt.Appendf(nil, "Action %d", i) }},
		{"variables", 0x80000001, 7, func(i int) []byte { return fmt.Appendf(nil, "variable %040d", i) }},
		{"grub", 0x0d, 8, func(i int) []byte { return fmt.Appendf(nil, "grub_cmd: linux /k%d x\x00", i) }},
		{"files", 0x0d, 9, func(i int) []byte { return fmt.Appendf(nil, "/boot/file%d", i) }},
		{"mok", 0x0d, 14, func(i int) []byte { return fmt.Appendf(nil, "MokList%d", i) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorker(t)
			w.edit(func(b *eventlogtest.Builder) {
				for i := range 4000 {
					b.Add(tt.pcr, tt.kind, tt.data(i))
				}
			})
			out := appraise(t, testVerifier(t), w.evidence(), w.expectation())
			b, err := json.Marshal(out.Verdict)
			if err != nil || out.Verdict.Trusted || !out.Authentic {
				t.Fatalf("Appraise(%s): trusted %v, authentic %v, %v; want false, true", tt.name, out.Verdict.Trusted, out.Authentic, err)
			}
			if len(b) > maxVerdict {
				t.Errorf("Appraise(%s): the verdict has %d bytes, want at most %d", tt.name, len(b), maxVerdict)
			}
		})
	}
}
