package intel

import (
	"testing"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/eventlog/eventlogtest"
	"touchstone.dev/touchstone/internal/tpm"
)

// FuzzFacts feeds the same bytes to every reader of this package.
func FuzzFacts(f *testing.F) {
	f.Add([]byte(status(normal, active, fvme, "16.1.25.2049")))
	f.Add([]byte(status(normal, five, locked, "18.0.5.2141")))
	f.Add([]byte("0x10000007d"))
	f.Add([]byte("\x7d\x00\x00\x00\x01\x00\x00\x00"))
	f.Add(eventlogtest.New(tpm.AlgSHA256).AddLocality(3).Add(0, eventlog.SCRTMContents, []byte("Boot Guard Measured S-CRTM\x00")).
		Add(17, eventlog.TXTMLEHash, nil).Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := ParseHFSTS(string(b)); err == nil {
			if s.Generation == GenerationUnknown && (s.BootGuard() == Yes || s.Profile != ProfileUnknown || s.Verified != Unknown) {
				t.Errorf("unknown generation, yet %v", s)
			}
			if s.BootGuard() == Yes && s.Profile.Enforced() != Yes {
				t.Errorf("Boot Guard yes under profile %v", s.Profile)
			}
			_ = s.String()
		}
		if v, err := DecodeMSR(b); err == nil {
			m := ParseBootGuardMSR(v)
			if m.BootGuard() == Yes && (m.Revoked || !m.Verified) {
				t.Errorf("Boot Guard yes, yet %v", m)
			}
			_ = m.String()
		}
		if log, err := eventlog.Parse(b); err == nil {
			l := FromLog(log.Events)
			if l.Locality != log.Locality {
				t.Errorf("Locality: got %d, eventlog says %d", l.Locality, log.Locality)
			}
			_ = l.String()
		}
	})
}
