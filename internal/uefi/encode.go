package uefi

import "encoding/binary"

// EncodeX509List returns an EFI_SIGNATURE_LIST with one certificate in DER (UEFI 2.10, 32.4.1), as shim makes it of its own key. The owner is a
// GUID in text form; one that cannot be read counts as zero.
func EncodeX509List(owner string, der []byte) []byte {
	typ := mustGUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
	who, _ := ParseGUID(owner)
	size := GUIDSize + len(der)
	b := append([]byte(nil), typ[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(listHeader+size))
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(size))
	b = append(b, who[:]...)
	return append(b, der...)
}
