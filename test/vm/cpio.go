package vm

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Kinds of cpio entries, as in the mode of stat(2).
const (
	modeDir     = 0o040000
	modeRegular = 0o100000
	modeDevice  = 0o020000
)

// cpioArchive packs files, by absolute path, in the "newc" format that the kernel unpacks as its initrd
// (Documentation/driver-api/early-userspace/buffer-format.rst). The same files give the same bytes: entries are sorted, owned by
// root and without a time. Folders above each file, and those named in dirs, are made. /dev/console is always there:
// the kernel opens it before /init can mount /dev.
func cpioArchive(files map[string]File, dirs ...string) []byte {
	w := &cpioWriter{}
	folders := map[string]bool{}
	add := func(dir string) {
		for ; dir != "/" && dir != "."; dir = path.Dir(dir) {
			folders[dir] = true
		}
	}
	for _, d := range append(slices.Clone(dirs), "/dev") {
		add(path.Clean(d))
	}
	names := []string{"/dev/console"}
	for name := range files {
		add(path.Dir(name))
		names = append(names, name)
	}
	for d := range folders {
		names = append(names, d)
	}
	slices.Sort(names) // a folder sorts before what it holds
	for _, name := range names {
		switch {
		case folders[name]:
			w.entry(name, modeDir|0o755, 0, 0, nil)
		case name == "/dev/console":
			w.entry(name, modeDevice|0o600, 5, 1, nil)
		default:
			w.entry(name, modeRegular|files[name].Mode, 0, 0, files[name].Data)
		}
	}
	w.entry("TRAILER!!!", 0, 0, 0, nil)
	w.pad(512)
	return w.buf.Bytes()
}

type cpioWriter struct {
	buf   bytes.Buffer
	inode uint32
}

// entry appends one entry; major and minor number a device.
func (w *cpioWriter) entry(name string, mode, major, minor uint32, data []byte) {
	name = strings.TrimPrefix(name, "/")
	w.inode++
	links := uint32(1)
	if mode&modeDir != 0 {
		links = 2
	}
	fields := []uint32{
		w.inode, mode, 0, 0, links, 0, // inode, mode, uid, gid, links, time
		uint32(len(data)), 0, 0, major, minor, uint32(len(name) + 1), 0, // size, device (2), device it stands for (2), name, checksum
	}
	w.buf.WriteString("070701")
	for _, f := range fields {
		fmt.Fprintf(&w.buf, "%08X", f)
	}
	w.buf.WriteString(name)
	w.buf.WriteByte(0)
	w.pad(4)
	w.buf.Write(data)
	w.pad(4)
}

func (w *cpioWriter) pad(to int) {
	for w.buf.Len()%to != 0 {
		w.buf.WriteByte(0)
	}
}
