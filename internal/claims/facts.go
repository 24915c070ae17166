package claims

import (
	"encoding/json"
	"strconv"
	"strings"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/intel"
	"touchstone.dev/touchstone/internal/uefi"
)

// Facts are what the worker says of itself. Nil or "" means that it did not say, or that it could not be read.
type Facts struct {
	Lockdown     string // "none", "integrity" or "confidentiality"
	Taint        *uint64
	SigEnforce   *bool
	CommandLine  string
	Modules      []string // names in /proc/modules
	ModulesKnown bool     // /proc/modules was there, even if empty
	Kernel       string   // release
	Version      string   // /proc/version
	MEI          *intel.Status
	BootGuard    *intel.BootGuardMSR
	AssetTag     map[string]string
	// MOKList and MOKListX are the contents that shim mirrored; package appraisal proves them by PCR 14.
	MOKList  []byte
	MOKListX []byte
	Volumes  Volumes
	Problems []string // facts that are there but cannot be read
}

const (
	mokListRT  = evidence.FactEFIPrefix + "MokListRT-" + uefi.ShimLock
	mokListXRT = evidence.FactEFIPrefix + "MokListXRT-" + uefi.ShimLock
)

// ReadFacts reads the raw facts of an Evidence document.
func ReadFacts(raw map[string][]byte) Facts {
	var f Facts
	text := func(name string) (string, bool) {
		b, ok := raw[name]
		return strings.TrimSpace(string(b)), ok
	}
	if s, ok := text(evidence.FactLockdown); ok {
		f.Lockdown = active(s)
		if f.Lockdown == "" {
			f.bad(evidence.FactLockdown)
		}
	}
	if s, ok := text(evidence.FactTainted); ok {
		if v, err := strconv.ParseUint(s, 10, 64); err == nil {
			f.Taint = &v
		} else {
			f.bad(evidence.FactTainted)
		}
	}
	if s, ok := text(evidence.FactSigEnforce); ok {
		if s == "Y" || s == "N" {
			v := s == "Y"
			f.SigEnforce = &v
		} else {
			f.bad(evidence.FactSigEnforce)
		}
	}
	f.CommandLine, _ = text(evidence.FactCommandLine)
	f.Version, _ = text(evidence.FactVersion)
	if w := strings.Fields(f.Version); len(w) > 2 && w[0] == "Linux" {
		f.Kernel = w[2]
	}
	if s, ok := text(evidence.FactModules); ok {
		f.ModulesKnown = true
		for line := range strings.Lines(s) {
			if w := strings.Fields(line); len(w) > 0 {
				f.Modules = append(f.Modules, w[0])
			}
		}
	}
	f.MOKList, f.MOKListX = efiVariable(raw[mokListRT]), efiVariable(raw[mokListXRT])
	f.readIntel(raw)
	if f.Volumes = ReadVolumes(raw); f.Volumes.Problem != "" {
		f.bad(evidence.FactVolumes)
	}
	if b, ok := raw[evidence.FactAssetTag]; ok {
		if err := json.Unmarshal(b, &f.AssetTag); err != nil {
			f.AssetTag = nil
			f.bad(evidence.FactAssetTag)
		}
	}
	return f
}

func (f *Facts) readIntel(raw map[string][]byte) {
	if b, ok := raw[evidence.FactMEIStatus]; ok {
		if s, err := intel.ParseHFSTS(string(b)); err == nil {
			f.MEI = &s
		} else {
			f.bad(evidence.FactMEIStatus)
		}
	}
	if b, ok := raw[evidence.FactMSRBootGrd]; ok {
		if v, err := intel.DecodeMSR(b); err == nil {
			s := intel.ParseBootGuardMSR(v)
			f.BootGuard = &s
		} else {
			f.bad(evidence.FactMSRBootGrd)
		}
	}
}

func (f *Facts) bad(name string) { f.Problems = append(f.Problems, name) }

// active returns the choice in brackets: "none [integrity] confidentiality".
func active(s string) string {
	for w := range strings.FieldsSeq(s) {
		if len(w) > 2 && w[0] == '[' && w[len(w)-1] == ']' {
			return w[1 : len(w)-1]
		}
	}
	return ""
}

// efiVariable strips the four bytes of attributes that efivarfs puts before the data.
func efiVariable(b []byte) []byte {
	if len(b) < 4 {
		return nil
	}
	return b[4:]
}
