package verifier

import (
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/reference"
	"touchstone.dev/touchstone/internal/uefi"
)

// What Capture can take from a node.
const (
	CaptureFirmware = "firmware" // events of PCR 0 and 2
	CaptureKeys     = "keys"     // PK, KEK, db and dbx
)

// Capture makes reference values from the Evidence of a node that a person declares good: name says which. Only what the quotes prove is
// taken; the error says what they do not prove. The caller fills in file, digest and note.
func (v *Verifier) Capture(doc *evidence.Document, name string, now time.Time, what ...string) (reference.Source, error) {
	src := reference.Source{Kind: reference.KindCapture, Name: name, Imported: now.UTC()}
	exp := Expectation{Now: now}
	a, err := authenticate(doc, &exp)
	if err != nil {
		return src, fmt.Errorf("capture: %w", err)
	}
	s := &session{v: v, doc: doc, exp: &exp, authentic: a}
	s.bank = v.strongest(a.banks)
	if s.log, s.facts, err = s.digests(); err != nil {
		return src, fmt.Errorf("capture: %w", err)
	}
	c, err := s.claims()
	if err != nil {
		return src, fmt.Errorf("capture: %w", err)
	}
	for _, w := range what {
		switch w {
		case CaptureFirmware:
			err = captureFirmware(c, &src)
		case CaptureKeys:
			err = captureKeys(c, &src)
		default:
			err = fmt.Errorf("cannot capture %q: want %s or %s", w, CaptureFirmware, CaptureKeys)
		}
		if err != nil {
			return src, fmt.Errorf("capture: %w", err)
		}
	}
	return src, nil
}

func proves(c *claims.Claims, what string, pcrs ...int) error {
	if !c.Proves(pcrs...) {
		if c.Boot == nil {
			return fmt.Errorf("%s: there is no firmware log: %s", what, c.BootError)
		}
		return fmt.Errorf("%s: the log does not replay to the quoted PCRs %v", what, pcrs)
	}
	for _, p := range c.Boot.Problems {
		if slices.Contains(pcrs, p.PCR) {
			return fmt.Errorf("%s: event %d: %s", what, p.Event.Index, p.Message)
		}
	}
	return nil
}

func captureFirmware(c *claims.Claims, src *reference.Source) error {
	if err := proves(c, CaptureFirmware, 0, 2); err != nil {
		return err
	}
	fw := reference.Firmware{Name: src.Name, Version: c.Boot.SCRTMVersion, Locality: max(c.Boot.Log.Locality, 0),
		PCRs: make(map[string]map[int][]reference.FirmwareEvent)}
	for _, a := range c.Boot.Log.Algs {
		if !slices.Contains(c.Quote.Banks, a) {
			continue // a bank that was not quoted proves nothing
		}
		pcrs := map[int][]reference.FirmwareEvent{0: {}, 2: {}}
		for i := range c.Boot.Log.Events {
			e := &c.Boot.Log.Events[i]
			if (e.PCR == 0 || e.PCR == 2) && e.Extends() {
				pcrs[e.PCR] = append(pcrs[e.PCR], reference.FirmwareEvent{Type: e.Type.String(), Digest: hex.EncodeToString(e.Digest(a)), What: eventlog.Describe(e)})
			}
		}
		fw.PCRs[a.String()] = pcrs
	}
	values := make(map[int]string)
	for i, v := range c.Values.Values {
		if v != nil && i != imaPCR {
			values[i] = hex.EncodeToString(v)
		}
	}
	fw.Values = map[string]map[int]string{c.Bank.String(): values}
	src.Firmware = append(src.Firmware, fw)
	return nil
}

func captureKeys(c *claims.Claims, src *reference.Source) error {
	if err := proves(c, CaptureKeys, 7); err != nil {
		return err
	}
	k := new(reference.Keys)
	for name, to := range map[string]*[]reference.Signature{"PK": &k.PK, "KEK": &k.KEK, "db": &k.DB, "dbx": &k.DBX} {
		v := c.Boot.Variable(name)
		if v == nil {
			return fmt.Errorf("%s: the firmware did not measure %s", CaptureKeys, name)
		}
		for _, s := range v.Signatures {
			*to = append(*to, signature(s))
		}
	}
	src.Keys = k
	return nil
}

func signature(s uefi.Signature) reference.Signature {
	return reference.Signature{Type: s.Type, Owner: s.Owner, SHA256: hex.EncodeToString(s.SHA256[:]), Subject: s.Subject()}
}
