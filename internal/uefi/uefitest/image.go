// Package uefitest makes small PE images, signatures and signature databases for tests, with keys made on the spot.
//
// It writes from the specifications what package uefi reads, by code of its own, so that tests compare two readings of the same text.
package uefitest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Layout of the images. Between the DOS header and headerAt is room for the setup header of a kernel.
const (
	headerAt    = 0x400
	headersSize = 0x800
	alignment   = 0x200
	maxSections = 18
)

// Section is a section of an image.
type Section struct {
	Name string // at most 8 bytes; longer ones go to the string table, as objcopy does it
	Data []byte
}

// Image is what Build makes a PE32+ image of.
type Image struct {
	Sections []Section
	Stub     []byte // put at offset 64, before the PE header: the setup header of a kernel
	Signers  []*Signer
}

// BuildImage makes a PE32+ image with the sections, signed by each signer.
func BuildImage(sections []Section, signers ...*Signer) ([]byte, error) {
	return Image{Sections: sections, Signers: signers}.Build()
}

// Build makes the image.
func (im Image) Build() ([]byte, error) {
	if len(im.Sections) > maxSections || len(im.Stub) > headerAt-64 {
		return nil, fmt.Errorf("%d sections and a stub of %d bytes do not fit", len(im.Sections), len(im.Stub))
	}
	b := im.layout()
	digest := Digest(b)
	var table []byte
	for _, s := range im.Signers {
		der, err := s.sign(digest)
		if err != nil {
			return nil, err
		}
		table = append(table, winCertificate(der)...)
	}
	if len(table) > 0 {
		binary.LittleEndian.PutUint32(b[securityAt():], uint32(len(b)))
		binary.LittleEndian.PutUint32(b[securityAt()+4:], uint32(len(table)))
		b = append(b, table...)
	}
	return b, nil
}

func checksumAt() int { return headerAt + 24 + 64 }
func securityAt() int { return headerAt + 24 + 112 + 4*8 }

// Digest computes the Authenticode SHA-256 of an unsigned image of this package: all of it but two fields.
func Digest(b []byte) []byte {
	h := sha256.New()
	h.Write(b[:checksumAt()])
	h.Write(b[checksumAt()+4 : securityAt()])
	h.Write(b[securityAt()+8:])
	return h.Sum(nil)
}

// layout writes headers and sections.
func (im Image) layout() []byte {
	le := binary.LittleEndian
	b := make([]byte, headersSize)
	copy(b, "MZ")
	copy(b[64:], im.Stub)
	le.PutUint32(b[0x3c:], headerAt)
	h := b[headerAt:]
	copy(h, "PE\x00\x00")
	le.PutUint16(h[4:], 0x8664) // machine: x86-64
	le.PutUint16(h[6:], uint16(len(im.Sections)))
	le.PutUint16(h[20:], 240)    // size of the optional header
	le.PutUint16(h[22:], 0x0206) // executable, no line numbers, debug stripped
	o := h[24:]
	le.PutUint16(o, 0x20b)            // PE32+
	le.PutUint32(o[32:], 0x1000)      // section alignment
	le.PutUint32(o[36:], alignment)   // file alignment
	le.PutUint32(o[60:], headersSize) // size of headers
	le.PutUint32(o[64:], 0x12345678)  // checksum: not hashed
	le.PutUint16(o[68:], 10)          // subsystem: EFI application
	le.PutUint32(o[108:], 16)         // data directories
	var long bytes.Buffer             // string table for long section names
	for i, s := range im.Sections {
		e := h[24+240+40*i:]
		name := s.Name
		if len(name) > 8 {
			name = fmt.Sprintf("/%d", 4+long.Len())
			long.WriteString(s.Name + "\x00")
		}
		copy(e[:8], name)
		size := (len(s.Data) + alignment - 1) / alignment * alignment
		le.PutUint32(e[8:], uint32(len(s.Data)))
		le.PutUint32(e[12:], uint32(0x1000*(i+1)))
		le.PutUint32(e[16:], uint32(size))
		le.PutUint32(e[20:], uint32(len(b)))
		b = append(b, s.Data...)
		b = append(b, make([]byte, size-len(s.Data))...)
		h = b[headerAt:]
	}
	if long.Len() > 0 {
		le.PutUint32(h[12:], uint32(len(b))) // symbol table: empty, followed by the strings
		b = le.AppendUint32(b, uint32(4+long.Len()))
		b = append(b, long.Bytes()...)
		b = append(b, make([]byte, (8-len(b)%8)%8)...) // certificate tables are aligned
	}
	return b
}

// winCertificate wraps a PKCS#7 signature for the certificate table.
func winCertificate(der []byte) []byte {
	size := 8 + len(der)
	b := binary.LittleEndian.AppendUint32(nil, uint32(size))
	b = append(b, 0x00, 0x02, 0x02, 0x00) // revision 2.0, PKCS#7
	b = append(b, der...)
	return append(b, make([]byte, (8-size%8)%8)...)
}
