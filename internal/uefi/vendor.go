package uefi

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrVendorTable marks a .vendor_cert section that cannot be read.
var ErrVendorTable = errors.New("malformed .vendor_cert section")

// VendorTable is what shim was built to trust and to refuse by itself: its section .vendor_cert.
type VendorTable struct {
	Authorized   []Signature // the vendor's certificate or, in some builds, a database
	Deauthorized []Signature // the vendor's own revocation list
}

// ParseVendorTable reads the .vendor_cert section of shim (cert.S of rhboot/shim): sizes of both parts, then their offsets from the
// start of the section. The authorized part is one DER certificate or signature lists. A certificate gets an empty Owner.
func ParseVendorTable(section []byte) (*VendorTable, error) {
	const header = 16
	if len(section) < header {
		return nil, fmt.Errorf("%w: %d bytes, want at least %d", ErrVendorTable, len(section), header)
	}
	field := func(i int) uint64 { return uint64(binary.LittleEndian.Uint32(section[4*i:])) }
	part := func(size, off uint64) ([]byte, error) {
		if size == 0 {
			return nil, nil
		}
		if off < header || off+size > uint64(len(section)) {
			return nil, fmt.Errorf("%w: %d bytes at %d in a section of %d", ErrVendorTable, size, off, len(section))
		}
		return section[off : off+size], nil
	}
	authorized, err := part(field(0), field(2))
	if err != nil {
		return nil, err
	}
	deauthorized, err := part(field(1), field(3))
	if err != nil {
		return nil, err
	}
	var t VendorTable
	if looksLikeCertificate(authorized) {
		t.Authorized = []Signature{newSignature(TypeX509, "", authorized)}
	} else if t.Authorized, err = ParseSignatureLists(authorized); err != nil {
		return nil, fmt.Errorf("%w: authorized: %w", ErrVendorTable, err)
	}
	if t.Deauthorized, err = ParseSignatureLists(deauthorized); err != nil {
		return nil, fmt.Errorf("%w: deauthorized: %w", ErrVendorTable, err)
	}
	return &t, nil
}
