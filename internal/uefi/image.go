package uefi

import (
	"bytes"
	"cmp"
	"crypto"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"touchstone.dev/touchstone/internal/tpm"
)

// Limits on PE images.
const (
	MaxImage    = 512 << 20 // bytes of an image (a unified kernel image holds an initrd)
	MaxSections = 96        // the limit of the PE format for images
)

// ErrImage marks bytes that are no PE image that firmware would load.
var ErrImage = errors.New("malformed PE image")

// Positions in a PE header, counted from the PE signature (PE Format, "COFF File Header" and "Optional Header").
const (
	dosHeaderSize  = 64
	optionalHeader = 24                  // after signature and COFF header
	checksumField  = optionalHeader + 64 // 4 bytes, not hashed
	directories32  = optionalHeader + 96 // data directories of PE32
	directories64  = optionalHeader + 112
	securityEntry  = 4 * 8 // fifth directory: file offset and size of the certificate table, 8 bytes, not hashed
)

// Image is a PE32 or PE32+ image. It refers to the bytes it was parsed from.
type Image struct {
	Machine  uint16 // IMAGE_FILE_MACHINE: 0x8664 (x86-64), 0xaa64 (Arm 64) ...
	Sections []Section

	raw      []byte
	checksum int      // offset of the checksum
	security int      // offset of the security directory entry
	headers  int      // SizeOfHeaders
	table    span     // certificate table, empty when the image is unsigned
	hashed   [][]byte // what the Authenticode digest covers, in order
}

// Section is one section of an image.
type Section struct {
	Name string
	Data []byte // as in the file, cut to the virtual size where that is smaller (the rest is padding)
}

type span struct{ off, size int }

// ParseImage reads the headers of a PE image and checks that everything they point at lies in the file.
func ParseImage(b []byte) (*Image, error) {
	if len(b) > MaxImage {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", ErrImage, len(b), MaxImage)
	}
	if len(b) < dosHeaderSize || b[0] != 'M' || b[1] != 'Z' {
		return nil, fmt.Errorf("%w: no MZ header", ErrImage)
	}
	f, err := pe.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrImage, err)
	}
	im := &Image{raw: b, Machine: f.Machine}
	if err := im.locate(f); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrImage, err)
	}
	if err := im.cover(f.Sections); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrImage, err)
	}
	return im, nil
}

// locate finds the fields that the Authenticode digest leaves out, and the certificate table.
func (im *Image) locate(f *pe.File) error {
	start := int(binary.LittleEndian.Uint32(im.raw[0x3c:]))
	dirs := start + directories64
	var headers, count uint32
	switch h := f.OptionalHeader.(type) {
	case *pe.OptionalHeader32:
		dirs = start + directories32
		headers, count = h.SizeOfHeaders, h.NumberOfRvaAndSizes
	case *pe.OptionalHeader64:
		headers, count = h.SizeOfHeaders, h.NumberOfRvaAndSizes
	default:
		return errors.New("no optional header: this is an object file, not an image")
	}
	im.checksum, im.security, im.headers = start+checksumField, dirs+securityEntry, int(headers)
	if im.headers > len(im.raw) || im.security+8 > im.headers {
		return fmt.Errorf("headers of %d bytes in a file of %d", headers, len(im.raw))
	}
	if count <= 4 {
		return errors.New("no security directory")
	}
	off := binary.LittleEndian.Uint32(im.raw[im.security:])
	size := binary.LittleEndian.Uint32(im.raw[im.security+4:])
	if size == 0 {
		return nil
	}
	if uint64(off)+uint64(size) > uint64(len(im.raw)) || int(off) < im.headers {
		return fmt.Errorf("certificate table at %d with %d bytes in a file of %d", off, size, len(im.raw))
	}
	im.table = span{int(off), int(size)}
	return nil
}

// cover collects what is hashed, the way firmware does it (EDK II, HashPeImage): headers without checksum and security directory
// entry, sections in the order of their place in the file, then whatever follows them except the certificate table.
func (im *Image) cover(sections []*pe.Section) error {
	if len(sections) > MaxSections {
		return fmt.Errorf("%d sections, at most %d", len(sections), MaxSections)
	}
	b := im.raw
	im.hashed = append(im.hashed, b[:im.checksum], b[im.checksum+4:im.security], b[im.security+8:im.headers])
	sorted := slices.Clone(sections)
	slices.SortStableFunc(sorted, func(x, y *pe.Section) int { return cmp.Compare(x.Offset, y.Offset) })
	total := uint64(im.headers)
	for _, s := range sorted {
		if s.Size == 0 {
			continue
		}
		if uint64(s.Offset)+uint64(s.Size) > uint64(len(b)) {
			return fmt.Errorf("section %q ends after the file", s.Name)
		}
		im.hashed = append(im.hashed, b[s.Offset:s.Offset+s.Size])
		total += uint64(s.Size)
	}
	end := uint64(len(b) - im.table.size)
	if total > end {
		return errors.New("sections overlap each other or the certificate table")
	}
	if total < end {
		im.hashed = append(im.hashed, b[total:end])
	}
	for _, s := range sections {
		if s.Size == 0 {
			im.Sections = append(im.Sections, Section{Name: s.Name}) // its offset means nothing
			continue
		}
		size := s.Size
		if s.VirtualSize != 0 {
			size = min(size, s.VirtualSize)
		}
		im.Sections = append(im.Sections, Section{Name: s.Name, Data: b[s.Offset:][:size:size]})
	}
	return nil
}

// Digest returns the Authenticode digest of the image in alg: what firmware and shim extend into PCR 4 and what db and dbx
// list. Signatures are no part of it. It returns nil for an algorithm that Touchstone does not know.
func (im *Image) Digest(alg tpm.Alg) []byte {
	h := alg.Hash()
	if h == 0 {
		return nil
	}
	return im.digest(h)
}

func (im *Image) digest(h crypto.Hash) []byte {
	w := h.New()
	for _, part := range im.hashed {
		w.Write(part)
	}
	return w.Sum(nil)
}

// Section returns the content of the first section called name (".sbat", ".linux", ".cmdline" ...), or nil when there is none.
func (im *Image) Section(name string) []byte {
	for i := range im.Sections {
		if im.Sections[i].Name == name {
			return im.Sections[i].Data
		}
	}
	return nil
}
