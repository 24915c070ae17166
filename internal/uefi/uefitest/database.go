package uefitest

import (
	"encoding/binary"

	"touchstone.dev/touchstone/internal/uefi"
)

// GUIDs of signature types, for List.
const (
	X509   = "a5c059a1-94e4-4aa7-87b5-ab155c2bf072"
	SHA256 = "c1c41626-504c-4092-aca9-41f936934328"
)

// Owner is the owner of the entries that List makes.
const Owner = "11111111-2222-3333-4444-555555555555"

func guid(text string) []byte {
	g, err := uefi.ParseGUID(text)
	if err != nil {
		panic(err) // a mistake in a test
	}
	return g[:]
}

// List makes one EFI_SIGNATURE_LIST with entries of the same size.
func List(kind string, entries ...[]byte) []byte {
	size := 16
	if len(entries) > 0 {
		size += len(entries[0])
	}
	b := guid(kind)
	for _, n := range []int{28 + size*len(entries), 0, size} {
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	for _, e := range entries {
		b = append(append(b, guid(Owner)...), e...)
	}
	return b
}

// VendorTable makes a .vendor_cert section of shim.
func VendorTable(authorized, deauthorized []byte) []byte {
	var b []byte
	for _, n := range []int{len(authorized), len(deauthorized), 16, 16 + len(authorized)} {
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	return append(append(b, authorized...), deauthorized...)
}

// SignedUpdate makes an authenticated variable update with an empty signature: header, then lists.
func SignedUpdate(lists []byte) []byte {
	b := make([]byte, 16) // EFI_TIME: 2024-03-01 12:30:15
	binary.LittleEndian.PutUint16(b, 2024)
	copy(b[2:], []byte{3, 1, 12, 30, 15})
	b = binary.LittleEndian.AppendUint32(b, 24+4)
	b = append(b, 0x00, 0x02, 0xf1, 0x0e)
	b = append(b, guid("4aafd29d-68df-49ee-8aa9-347d375665a7")...)
	return append(append(b, 0x30, 0x02, 0x05, 0x00), lists...)
}
