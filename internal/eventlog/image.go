package eventlog

import (
	"encoding/binary"
	"strings"
)

// ImageLoad is what an image event says of an EFI image (PFP 10.2.5, UEFI_IMAGE_LOAD_EVENT, 64-bit). None of it is covered by the digest, which
// is the image's Authenticode hash: a path in here is a hint for people.
type ImageLoad struct {
	Location   uint64 // physical address
	Length     uint64 // bytes
	LinkTime   uint64 // link-time address
	DevicePath []byte // EFI device path, points into the log; empty for an image loaded from memory
	// Path is the text of the file path nodes (`\EFI\BOOT\BOOTX64.EFI`), or empty.
	Path string
}

// IsImage reports whether e is of a type that carries an EFI image.
func (e *Event) IsImage() bool {
	switch e.Type {
	case EFIBootServicesApplication, EFIBootServicesDriver, EFIRuntimeServicesDriver:
		return true
	}
	return false
}

// Image decodes EV_EFI_BOOT_SERVICES_APPLICATION, _DRIVER and EV_EFI_RUNTIME_SERVICES_DRIVER. Bytes behind the device path are tolerated: firmware
// pads there, and the digest doesn't cover them anyway.
func (e *Event) Image() (*ImageLoad, error) {
	if !e.IsImage() {
		return nil, e.wrongType("EFI image")
	}
	d := e.Data
	if len(d) < 32 {
		return nil, e.badData("%d bytes, an image event takes at least 32", len(d))
	}
	size := binary.LittleEndian.Uint64(d[24:])
	if size > uint64(len(d)-32) {
		return nil, e.badData("device path of %d bytes in %d bytes", size, len(d)-32)
	}
	out := &ImageLoad{
		Location: binary.LittleEndian.Uint64(d),
		Length:   binary.LittleEndian.Uint64(d[8:]),
		LinkTime: binary.LittleEndian.Uint64(d[16:]),
	}
	out.DevicePath = d[32 : 32+size]
	out.Path = filePath(out.DevicePath)
	return out, nil
}

// filePath joins the file path nodes of a device path (UEFI 2.10, 10.3.5.4). It stops at the first thing it doesn't understand.
func filePath(b []byte) string {
	const (
		media, fileNode = 4, 4
		end             = 0x7f
	)
	var out strings.Builder
	for range maxNodes {
		if len(b) < 4 {
			break
		}
		size := int(binary.LittleEndian.Uint16(b[2:]))
		if b[0] == end || size < 4 || size > len(b) {
			break
		}
		if b[0] == media && b[1] == fileNode {
			s, ok := utf16Text(b[4:size])
			if !ok {
				break
			}
			if out.Len() > 0 && !strings.HasPrefix(s, `\`) {
				out.WriteByte('\\')
			}
			out.WriteString(s)
		}
		b = b[size:]
	}
	return out.String()
}

// GPT is the partition table of the boot disk (PFP 10.2.7, UEFI_GPT_DATA).
type GPT struct {
	Disk       string // GUID of the disk
	Partitions []Partition
}

// Partition is one used entry of the table. First and Last are blocks, both included.
type Partition struct {
	Type, GUID  string
	First, Last uint64
	Attributes  uint64
	Name        string
}

// Where the fields of the GPT header and of an entry lie (UEFI 2.10, 5.3).
const (
	gptHeader    = 92
	gptDisk      = 56
	gptEntrySize = 84
	gptEntry     = 128
)

// GPT decodes an EV_EFI_GPT_EVENT or GPT_EVENT2 event.
func (e *Event) GPT() (*GPT, error) {
	if e.Type != EFIGPT && e.Type != EFIGPT2 {
		return nil, e.wrongType("partition table")
	}
	d := e.Data
	if len(d) < gptHeader+8 || string(d[:8]) != "EFI PART" {
		return nil, e.badData("no GPT header in %d bytes", len(d))
	}
	size := uint64(binary.LittleEndian.Uint32(d[gptEntrySize:]))
	n := binary.LittleEndian.Uint64(d[gptHeader:])
	list := d[gptHeader+8:]
	if size < gptEntry || n > maxPartitions || n*size != uint64(len(list)) {
		return nil, e.badData("%d partitions of %d bytes in %d bytes", n, size, len(list))
	}
	out := &GPT{Disk: guid(d[gptDisk:])}
	for ; len(list) > 0; list = list[size:] {
		name := list[56:gptEntry]
		for i := 0; i < len(name); i += 2 {
			if name[i] == 0 && name[i+1] == 0 {
				name = name[:i]
				break
			}
		}
		text, ok := utf16Text(name)
		if !ok {
			return nil, e.badData("name of partition %d is not UTF-16 text", len(out.Partitions))
		}
		out.Partitions = append(out.Partitions, Partition{
			Type: guid(list), GUID: guid(list[16:]),
			First: binary.LittleEndian.Uint64(list[32:]), Last: binary.LittleEndian.Uint64(list[40:]),
			Attributes: binary.LittleEndian.Uint64(list[48:]), Name: text,
		})
	}
	return out, nil
}
