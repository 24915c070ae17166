package luks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// The phdr of LUKS1 (specification 2.3): 592 bytes, numbers big endian.
const (
	phdrSize      = 592
	atCipherName  = 8   // 32 bytes
	atCipherMode  = 40  // 32 bytes
	atPayload     = 104 // uint32, in sectors
	atKeyBytes    = 108 // uint32
	atDigest      = 112 // 20 bytes and 32 of salt
	endDigest     = 164
	atUUID1       = 168 // 40 bytes
	atSlots       = 208
	slotSize      = 48
	slots1        = 8
	slotActive    = 0x00ac71f3
	atSlotSalt    = 8 // 32 bytes
	atSlotOffset  = 40
	atSlotStripes = 44
	sector        = 512
)

// luksmeta's area: a header, then what is kept for each slot. It begins where the last key material ends, at a multiple of 4096.
const (
	metaSize     = 16 + slots1*metaSlot
	metaSlot     = 32 // UUID, offset, length and checksum of the content
	metaAlign    = 4096
	maxMetaValue = 16 << 10 // bytes: clevis keeps some 2 KiB
)

var (
	metaMagic  = []byte("LUKSMETA\x00\x00\x00\x01")
	metaClevis = []byte{0xcb, 0x6e, 0x89, 0x04, 0x81, 0xff, 0x40, 0xda, 0xa8, 0x4a, 0x07, 0xab, 0x9a, 0xb5, 0x71, 0x5e}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// hole is the gap between key material and payload, where luksmeta keeps its area.
func hole(phdr []byte) (begin, end int64) {
	keyBytes := int64(binary.BigEndian.Uint32(phdr[atKeyBytes:]))
	for i := range slots1 {
		s := phdr[atSlots+i*slotSize:]
		stop := int64(binary.BigEndian.Uint32(s[atSlotOffset:]))*sector + keyBytes*int64(binary.BigEndian.Uint32(s[atSlotStripes:]))
		begin = max(begin, stop)
	}
	begin = (begin + metaAlign - 1) / metaAlign * metaAlign
	return begin, int64(binary.BigEndian.Uint32(phdr[atPayload:])) * sector
}

// read1 reads the phdr, and behind it what luksmeta keeps for clevis: for each slot that has it four bytes with the number of the slot, four with a length, and the content.
func read1(r io.ReaderAt) ([]byte, error) {
	phdr := make([]byte, phdrSize)
	if _, err := r.ReadAt(phdr, 0); err != nil {
		return nil, fmt.Errorf("read the LUKS1 header: %w", err)
	}
	begin, end := hole(phdr)
	if begin < phdrSize || begin > MaxHeader*16 || end-begin < metaSize {
		return phdr, nil
	}
	area := make([]byte, metaSize)
	if _, err := r.ReadAt(area, begin); err != nil {
		return phdr, nil //nolint:nilerr // a device that ends here has no luksmeta
	}
	if !bytes.HasPrefix(area, metaMagic) {
		return phdr, nil
	}
	out := phdr
	for i := range slots1 {
		s := area[16+i*metaSlot:]
		at, n := binary.BigEndian.Uint32(s[16:]), binary.BigEndian.Uint32(s[20:])
		if !bytes.Equal(s[:16], metaClevis) || n == 0 || n > maxMetaValue || int64(at)+int64(n) > end-begin {
			continue
		}
		value := make([]byte, n)
		if _, err := r.ReadAt(value, begin+int64(at)); err != nil || crc32.Checksum(value, castagnoli) != binary.BigEndian.Uint32(s[24:]) {
			continue
		}
		out = appendMeta(out, i, value)
	}
	return out, nil
}

func appendMeta(b []byte, slot int, value []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(slot))
	b = binary.BigEndian.AppendUint32(b, uint32(len(value)))
	return append(b, value...)
}

// meta1 reads what read1 put behind the phdr, by slot.
func meta1(b []byte) (map[int][]byte, error) {
	out := map[int][]byte{}
	for b = b[phdrSize:]; len(b) > 0; {
		if len(b) < 8 {
			return nil, errors.New("what luksmeta keeps is cut off")
		}
		slot, n := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
		if b = b[8:]; slot >= slots1 || uint64(n) > uint64(len(b)) || out[int(slot)] != nil {
			return nil, errors.New("what luksmeta keeps does not fit together")
		}
		out[int(slot)], b = b[:n:n], b[n:]
	}
	return out, nil
}

func parse1(b []byte) (*Header, error) {
	if len(b) < phdrSize {
		return nil, errors.New("the LUKS1 header is cut off")
	}
	meta, err := meta1(b)
	if err != nil {
		return nil, err
	}
	h := &Header{Version: 1, UUID: text(b[atUUID1 : atUUID1+40]),
		Cipher: text(b[atCipherName:atCipherName+32]) + "-" + text(b[atCipherMode:atCipherMode+32])}
	if null(h.Cipher) {
		h.Plain = "its cipher is " + h.Cipher + ", which does not encrypt"
	}
	for i := range slots1 {
		if binary.BigEndian.Uint32(b[atSlots+i*slotSize:]) != slotActive {
			continue
		}
		s := Slot{Number: i}
		if value := meta[i]; value != nil {
			s.Ways = append(s.Ways, clevisWay(string(value), 0))
		}
		h.Slots = append(h.Slots, s)
	}
	return h, nil
}

// strip1 clears the digest of the volume key and the salts, and leaves of clevis what says how it opens.
func strip1(b []byte) ([]byte, error) {
	if len(b) < phdrSize {
		return nil, errors.New("the LUKS1 header is cut off")
	}
	meta, err := meta1(b)
	if err != nil {
		return nil, err
	}
	out := bytes.Clone(b[:phdrSize])
	clear(out[atDigest:endDigest])
	for i := range slots1 {
		clear(out[atSlots+i*slotSize+atSlotSalt:][:32])
	}
	for i := range slots1 {
		value, ok := meta[i]
		if !ok {
			continue
		}
		head, _, _ := bytes.Cut(value, []byte("."))
		stripped, err := stripProtected(string(head), 0)
		if err != nil {
			stripped = "" // Parse says that it cannot be read
		}
		out = appendMeta(out, i, []byte(stripped))
	}
	return out, nil
}
