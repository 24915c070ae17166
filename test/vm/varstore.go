package vm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf16"
)

// guid is an EFI GUID in its mixed-endian binary form.
type guid [16]byte

// GUIDs of the variables that the machines change (UEFI specification, 32.4 and 32.6; shim; OVMF's SecureBootConfig).
var (
	guidImageSecurity    = newGUID(0xd719b2cb, 0x3d3a, 0x4596, 0xa3bcdad00e67656f) // db, dbx
	guidGlobal           = newGUID(0x8be4df61, 0x93ca, 0x11d2, 0xaa0d00e098032b8c) // PK, KEK
	guidSecureBootEnable = newGUID(0xf0a30bc7, 0xaf08, 0x4556, 0x99c4001009c93a44)
	guidShim             = newGUID(0x605dab50, 0xe046, 0x4300, 0xabb63dd810dd8b23) // MokList, MokSBState
	guidCertX509         = newGUID(0xa5c059a1, 0x94e4, 0x4aa7, 0x87b5ab155c2bf072)
	guidCertSHA256       = newGUID(0xc1c41626, 0x504c, 0x4092, 0xaca941f936934328)
	guidOwner            = newGUID(0x12345678, 0x9abc, 0xdef0, 0x123456789abcdef0) // the tests as owner of a signature
)

func newGUID(a uint32, b, c uint16, d uint64) (g guid) {
	binary.LittleEndian.PutUint32(g[0:], a)
	binary.LittleEndian.PutUint16(g[4:], b)
	binary.LittleEndian.PutUint16(g[6:], c)
	binary.BigEndian.PutUint64(g[8:], d)
	return g
}

// Attributes of EFI variables (UEFI specification, 8.2).
const (
	attrBootService = 0x03 // non-volatile, boot services: what only firmware and boot loaders see
	attrTimeAuth    = 0x20 // carries a time stamp that must grow
	attrKeys        = 0x27 // db, dbx, KEK and PK: also run time, time-based authenticated
)

// Layout of OVMF's authenticated variable store (edk2, MdeModulePkg/Include/Guid/VariableFormat.h).
const (
	storeHeader    = 28
	variableHeader = 60
	variableMark   = 0x55AA
	variableValid  = 0x3F
)

// variable is one valid entry of a store.
type variable struct {
	name  string
	guid  guid
	attrs uint32
	time  [16]byte // EFI_TIME, zero unless attrTimeAuth
	data  []byte
}

// varStore is an OVMF variable store file that can be changed while the machine is off.
type varStore struct {
	image       []byte
	first, last int // where variables begin and end in image
	vars        []*variable
}

// timeStamp is set on authenticated variables: 2024-01-01, later than what Debian's OVMF ships.
var timeStamp = [16]byte{0xE8, 0x07, 1, 1}

// parseVarStore reads a variable store file such as OVMF_VARS_4M.fd.
func parseVarStore(image []byte) (*varStore, error) {
	if len(image) < 64+storeHeader || string(image[40:44]) != "_FVH" {
		return nil, errors.New("no firmware volume: want an OVMF variable store file")
	}
	start := int(binary.LittleEndian.Uint16(image[48:]))
	if start+storeHeader > len(image) {
		return nil, fmt.Errorf("firmware volume header of %d bytes exceeds the file", start)
	}
	size := int(binary.LittleEndian.Uint32(image[start+16:]))
	if size < storeHeader || start+size > len(image) {
		return nil, fmt.Errorf("variable store of %d bytes exceeds the file", size)
	}
	s := &varStore{image: bytes.Clone(image), first: start + storeHeader, last: start + size}
	for at := s.first; at+variableHeader <= s.last && binary.LittleEndian.Uint16(image[at:]) == variableMark; {
		v, n, err := parseVariable(image[at:s.last])
		if err != nil {
			return nil, fmt.Errorf("variable at %d: %w", at, err)
		}
		if image[at+2] == variableValid {
			s.vars = append(s.vars, v)
		}
		at += n
	}
	return s, nil
}

// parseVariable reads the entry at the start of b and returns how many bytes it takes, padding included.
func parseVariable(b []byte) (*variable, int, error) {
	nameSize, dataSize := binary.LittleEndian.Uint32(b[36:]), binary.LittleEndian.Uint32(b[40:])
	end := uint64(variableHeader) + uint64(nameSize) + uint64(dataSize)
	if end > uint64(len(b)) || nameSize < 2 || nameSize%2 != 0 {
		return nil, 0, fmt.Errorf("name of %d and data of %d bytes do not fit", nameSize, dataSize)
	}
	v := &variable{attrs: binary.LittleEndian.Uint32(b[4:])}
	copy(v.time[:], b[16:])
	copy(v.guid[:], b[44:])
	name := b[variableHeader : variableHeader+nameSize]
	units := make([]uint16, nameSize/2-1)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(name[2*i:])
	}
	v.name = string(utf16.Decode(units))
	v.data = bytes.Clone(b[variableHeader+int(nameSize) : end])
	return v, min(int(end+3)&^3, len(b)), nil
}

// get returns a variable, or nil.
func (s *varStore) get(name string, g guid) *variable {
	for _, v := range s.vars {
		if v.name == name && v.guid == g {
			return v
		}
	}
	return nil
}

// set replaces or adds a variable.
func (s *varStore) set(name string, g guid, attrs uint32, data []byte) {
	v := s.get(name, g)
	if v == nil {
		v = &variable{name: name, guid: g}
		s.vars = append(s.vars, v)
	}
	v.attrs, v.data, v.time = attrs, data, [16]byte{}
	if attrs&attrTimeAuth != 0 {
		v.time = timeStamp
	}
}

// extend appends data to a variable, as an append write of db or dbx does.
func (s *varStore) extend(name string, g guid, attrs uint32, data []byte) {
	if v := s.get(name, g); v != nil {
		data = append(bytes.Clone(v.data), data...)
	}
	s.set(name, g, attrs, data)
}

// bytes returns the store file with its variables packed anew.
func (s *varStore) bytes() ([]byte, error) {
	var b []byte
	for _, v := range s.vars {
		b = append(b, v.encode()...)
		for len(b)%4 != 0 {
			b = append(b, 0xFF)
		}
	}
	if len(b) > s.last-s.first {
		return nil, fmt.Errorf("variables take %d bytes, the store has %d", len(b), s.last-s.first)
	}
	image := bytes.Clone(s.image)
	n := copy(image[s.first:], b)
	for i := s.first + n; i < s.last; i++ {
		image[i] = 0xFF // erased flash
	}
	return image, nil
}

func (v *variable) encode() []byte {
	units := append(utf16.Encode([]rune(v.name)), 0)
	le := binary.LittleEndian
	b := le.AppendUint16(nil, variableMark)
	b = append(b, variableValid, 0)
	b = le.AppendUint32(b, v.attrs)
	b = le.AppendUint64(b, 0) // monotonic count: unused with time stamps
	b = append(b, v.time[:]...)
	b = le.AppendUint32(b, 0) // public key index: unused with time stamps
	b = le.AppendUint32(b, uint32(2*len(units)))
	b = le.AppendUint32(b, uint32(len(v.data)))
	b = append(b, v.guid[:]...)
	for _, u := range units {
		b = le.AppendUint16(b, u)
	}
	return append(b, v.data...)
}
