package uefi

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// GUIDSize is the size of an EFI_GUID in bytes.
const GUIDSize = 16

// GUID is an EFI_GUID as it lies in memory: the first three fields are little endian (UEFI 2.10, appendix A).
type GUID [GUIDSize]byte

// Well-known GUIDs, in the lower-case text form that this package uses everywhere.
const (
	GlobalVariable  = "8be4df61-93ca-11d2-aa0d-00e098032b8c" // PK, KEK, SecureBoot, SetupMode ...
	ImageSecurityDB = "d719b2cb-3d3a-4596-a3bc-dad00e67656f" // db, dbx, dbt, dbr
	ShimLock        = "605dab50-e046-4300-abb6-3dd810dd8b23" // MokList, SbatLevel, vendor_db ...
	MicrosoftOwner  = "77fa9abd-0359-4d32-bd60-28f4e78f784b" // owner of Microsoft's entries in KEK, db and dbx
	SystemdLoader   = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f" // LoaderInfo, StubInfo ...
	EmptyOwner      = "00000000-0000-0000-0000-000000000000"
	certTypePKCS7   = "4aafd29d-68df-49ee-8aa9-347d375665a7" // EFI_CERT_TYPE_PKCS7_GUID
)

var guidNames = map[string]string{
	GlobalVariable:                         "EFI global variable",
	ImageSecurityDB:                        "EFI image security database",
	ShimLock:                               "shim lock",
	MicrosoftOwner:                         "Microsoft",
	SystemdLoader:                          "systemd boot loader",
	EmptyOwner:                             "none",
	"a0baa8a3-041d-48a8-bc87-c36d121b5e3d": "OVMF default enrolment",
	"ade9e48f-9cb8-98e6-31af-b4e6009e2fe3": "Debian shim",
}

// GUIDName returns the well-known name of a GUID in text form, or "" when it has none.
func GUIDName(guid string) string { return guidNames[strings.ToLower(guid)] }

// String returns the text form in lower case: "8be4df61-93ca-11d2-aa0d-00e098032b8c".
func (g GUID) String() string {
	var t [GUIDSize]byte
	binary.BigEndian.PutUint32(t[0:], binary.LittleEndian.Uint32(g[0:]))
	binary.BigEndian.PutUint16(t[4:], binary.LittleEndian.Uint16(g[4:]))
	binary.BigEndian.PutUint16(t[6:], binary.LittleEndian.Uint16(g[6:]))
	copy(t[8:], g[8:])
	var out [36]byte
	hex.Encode(out[0:], t[0:4])
	hex.Encode(out[9:], t[4:6])
	hex.Encode(out[14:], t[6:8])
	hex.Encode(out[19:], t[8:10])
	hex.Encode(out[24:], t[10:16])
	out[8], out[13], out[18], out[23] = '-', '-', '-', '-'
	return string(out[:])
}

// ParseGUID reads the text form, with or without braces, in any case.
func ParseGUID(s string) (GUID, error) {
	var g GUID
	text := strings.TrimSuffix(strings.TrimPrefix(s, "{"), "}")
	if len(text) != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return g, fmt.Errorf("%q is not a GUID: want 8-4-4-4-12 hexadecimal digits", s)
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(raw) != GUIDSize {
		return g, fmt.Errorf("%q is not a GUID: want 8-4-4-4-12 hexadecimal digits", s)
	}
	binary.LittleEndian.PutUint32(g[0:], binary.BigEndian.Uint32(raw[0:]))
	binary.LittleEndian.PutUint16(g[4:], binary.BigEndian.Uint16(raw[4:]))
	binary.LittleEndian.PutUint16(g[6:], binary.BigEndian.Uint16(raw[6:]))
	copy(g[8:], raw[8:])
	return g, nil
}

func mustGUID(s string) GUID {
	g, err := ParseGUID(s)
	if err != nil {
		panic(err) // only for the constants of this package, at start
	}
	return g
}
