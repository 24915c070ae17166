package kmod

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"strings"
)

// maxModinfo bounds the .modinfo section, in bytes.
const maxModinfo = 1 << 20

// ErrModinfo marks a module without readable module information.
var ErrModinfo = errors.New("no module information")

// Modinfo is what a module says about itself.
type Modinfo struct {
	Name     string // as /proc/modules shows it: "virtio_net"
	Kernel   string // kernel release that it was built for: "6.1.0-56-cloud-amd64"
	VerMagic string // the whole version magic
	Version  string
	Licence  string
}

// ReadModinfo reads the .modinfo section of a module's content (an ELF object).
func ReadModinfo(content []byte) (Modinfo, error) {
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return Modinfo{}, fmt.Errorf("%w: %w", ErrModinfo, err)
	}
	s := f.Section(".modinfo")
	if s == nil || s.Type != elf.SHT_PROGBITS || s.Flags&elf.SHF_COMPRESSED != 0 {
		return Modinfo{}, fmt.Errorf("%w: no plain section .modinfo", ErrModinfo)
	}
	if s.FileSize > maxModinfo || s.Offset > uint64(len(content)) || s.FileSize > uint64(len(content))-s.Offset {
		return Modinfo{}, fmt.Errorf("%w: section .modinfo of %d bytes", ErrModinfo, s.FileSize)
	}
	var m Modinfo
	for field := range strings.SplitSeq(string(content[s.Offset:s.Offset+s.FileSize]), "\x00") {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "name":
			m.Name = value
		case "vermagic":
			m.VerMagic = value
			m.Kernel, _, _ = strings.Cut(value, " ")
		case "version":
			m.Version = value
		case "license":
			m.Licence = value
		}
	}
	return m, nil
}

// NameFromPath returns the name that a module file has in /proc/modules: the file's name without its endings, dashes as underscores.
func NameFromPath(path string) string {
	name := path[strings.LastIndexByte(path, '/')+1:]
	for _, end := range []string{".gz", ".xz", ".zst", ".ko"} {
		name = strings.TrimSuffix(name, end)
	}
	return strings.ReplaceAll(name, "-", "_")
}
