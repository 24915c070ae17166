package kmod

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Limits on kernels.
const (
	MaxKernelImage = 256 << 20 // bytes of a compressed kernel
	MaxKernel      = 512 << 20 // bytes unpacked
)

// ErrKernel marks bytes that are no kernel that this package can unpack.
var ErrKernel = errors.New("not a kernel image that can be unpacked")

// Positions in the setup header of a bzImage (Documentation/arch/x86/boot.rst).
const (
	setupSects    = 0x1f1
	setupMagic    = 0x202 // "HdrS"
	setupVersion  = 0x206
	kernelVersion = 0x20e // offset of the version string, less 0x200
	payloadOffset = 0x248 // from the end of the setup
	payloadLength = 0x24c
	setupEnd      = 0x250
	sectorSize    = 512
)

// UnpackKernel returns the kernel proper (vmlinux) inside an x86 bzImage, an EFI zboot image (Arm 64) or a gzip file.
func UnpackKernel(b []byte) ([]byte, error) {
	if len(b) > MaxKernelImage {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", ErrKernel, len(b), MaxKernelImage)
	}
	payload, err := findPayload(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKernel, err)
	}
	out, err := decompress(payload, MaxKernel)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKernel, err)
	}
	return out, nil
}

func isBzImage(b []byte) bool {
	return len(b) >= setupEnd && string(b[setupMagic:setupMagic+4]) == "HdrS"
}

// IsKernel reports whether b begins like a Linux boot image: a bzImage (x86) or an EFI zboot image.
func IsKernel(b []byte) bool { return isBzImage(b) || isZboot(b) }

func isZboot(b []byte) bool { return len(b) >= 32 && string(b[:2]) == "MZ" && string(b[4:8]) == "zimg" }

func findPayload(b []byte) ([]byte, error) {
	switch {
	case isBzImage(b):
		if v := binary.LittleEndian.Uint16(b[setupVersion:]); v < 0x208 {
			return nil, fmt.Errorf("boot protocol %d.%02d does not tell where the kernel lies", v>>8, v&0xff)
		}
		sects := uint64(b[setupSects])
		if sects == 0 {
			sects = 4 // as the boot protocol says
		}
		off := (sects+1)*sectorSize + uint64(binary.LittleEndian.Uint32(b[payloadOffset:]))
		return cut(b, off, uint64(binary.LittleEndian.Uint32(b[payloadLength:])))
	case isZboot(b):
		return cut(b, uint64(binary.LittleEndian.Uint32(b[8:])), uint64(binary.LittleEndian.Uint32(b[12:])))
	case bytes.HasPrefix(b, []byte{0x1f, 0x8b}):
		return b, nil
	}
	return nil, errors.New("neither bzImage, EFI zboot nor gzip")
}

func cut(b []byte, off, size uint64) ([]byte, error) {
	if size == 0 || off > uint64(len(b)) || size > uint64(len(b))-off {
		return nil, fmt.Errorf("payload of %d bytes at %d in a file of %d", size, off, len(b))
	}
	return b[off : off+size], nil
}

// KernelRelease returns the release that a bzImage names in its header ("6.1.0-56-cloud-amd64"), or "" when it names none.
func KernelRelease(b []byte) string {
	if !isBzImage(b) {
		return ""
	}
	p := binary.LittleEndian.Uint16(b[kernelVersion:])
	off := int(p) + 0x200
	if p == 0 || off >= len(b) {
		return ""
	}
	text := b[off:min(off+256, len(b))]
	end := bytes.IndexAny(text, " \x00")
	if end <= 0 {
		return ""
	}
	release := string(text[:end])
	if strings.ContainsFunc(release, func(r rune) bool { return r <= 0x20 || r >= 0x7f }) {
		return ""
	}
	return release
}
