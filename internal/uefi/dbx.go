package uefi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Forms in which a revocation list comes.
const (
	FormSigned = "signed update"   // DBXUpdate.bin: EFI_VARIABLE_AUTHENTICATION_2, then signature lists
	FormLists  = "signature lists" // the variable's content
	FormEFIVar = "efivars file"    // attributes (4 bytes), then the content
)

// ErrDBX marks bytes that are no revocation list in any known form.
var ErrDBX = errors.New("not a UEFI revocation list")

// DBX is a UEFI revocation list.
type DBX struct {
	Form       string
	Time       time.Time // of a signed update; zero otherwise
	PKCS7      []byte    // the signature of a signed update, not verified here: that takes the KEK of the machine
	Signatures []Signature
}

// ParseDBX reads a revocation list: a signed update, bare signature lists or a file of efivarfs. An empty list is refused, since it
// would pass for a revocation list that revokes nothing.
func ParseDBX(b []byte) (*DBX, error) {
	if d, err := parseSignedUpdate(b); err == nil {
		return d, nil
	} else if looksSigned(b) {
		return nil, fmt.Errorf("%w: %w", ErrDBX, err)
	}
	sigs, err := ParseSignatureLists(b)
	if err == nil && len(sigs) > 0 {
		return &DBX{Form: FormLists, Signatures: sigs}, nil
	}
	if len(b) > 4 && b[1] == 0 && b[2] == 0 && b[3] == 0 { // attributes of a variable are below 0x100
		if sigs, err := ParseSignatureLists(b[4:]); err == nil && len(sigs) > 0 {
			return &DBX{Form: FormEFIVar, Signatures: sigs}, nil
		}
	}
	if err == nil {
		err = errors.New("it has no entries")
	}
	return nil, fmt.Errorf("%w: want a signed update, signature lists or an efivars file: %w", ErrDBX, err)
}

// Positions in EFI_VARIABLE_AUTHENTICATION_2 (UEFI 2.10, 8.2.2): EFI_TIME, then WIN_CERTIFICATE_UEFI_GUID.
const (
	efiTimeSize    = 16
	winCertHeader  = 8
	authHeaderSize = efiTimeSize + winCertHeader + GUIDSize
)

func looksSigned(b []byte) bool {
	return len(b) >= authHeaderSize && binary.LittleEndian.Uint16(b[efiTimeSize+6:]) == 0x0ef1 &&
		GUID(b[efiTimeSize+winCertHeader:authHeaderSize]).String() == certTypePKCS7
}

func parseSignedUpdate(b []byte) (*DBX, error) {
	if !looksSigned(b) {
		return nil, errors.New("no authentication header")
	}
	size := uint64(binary.LittleEndian.Uint32(b[efiTimeSize:]))
	if size < winCertHeader+GUIDSize || efiTimeSize+size > uint64(len(b)) {
		return nil, fmt.Errorf("signature of %d bytes in a file of %d", size, len(b))
	}
	when, err := parseEFITime(b)
	if err != nil {
		return nil, err
	}
	sigs, err := ParseSignatureLists(b[efiTimeSize+size:])
	if err != nil {
		return nil, err
	}
	if len(sigs) == 0 {
		return nil, errors.New("it has no entries")
	}
	return &DBX{Form: FormSigned, Time: when, PKCS7: b[authHeaderSize : efiTimeSize+size], Signatures: sigs}, nil
}

// parseEFITime reads an EFI_TIME (UEFI 2.10, 8.3). Authenticated variables are in UTC with all but the date and time zero.
func parseEFITime(b []byte) (time.Time, error) {
	year, month, day := int(binary.LittleEndian.Uint16(b)), int(b[2]), int(b[3])
	hour, minute, second := int(b[4]), int(b[5]), int(b[6])
	if year < 1900 || year > 9999 || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 59 {
		return time.Time{}, fmt.Errorf("%d-%d-%d %d:%d:%d is not a time", year, month, day, hour, minute, second)
	}
	return time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC), nil
}
