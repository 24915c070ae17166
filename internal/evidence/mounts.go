package evidence

import (
	"bytes"
	"fmt"
	"strings"
)

// Mount is a line of /proc/PID/mountinfo (proc(5)), as far as it counts here.
type Mount struct {
	Device string // MAJOR:MINOR
	Root   string // of the mount within its file system: "/" unless it is a bind mount of a folder, or a subvolume
	Point  string
	Type   string // of the file system
	Source string
	RO     bool // of the file system
}

// ParseMount reads a line.
func ParseMount(line []byte) (Mount, error) {
	left, right, ok := bytes.Cut(line, []byte(" - "))
	f, g := bytes.Fields(left), bytes.Fields(right)
	if !ok || len(f) < 6 || len(g) < 2 {
		return Mount{}, fmt.Errorf("%w: %.60q is no line of mountinfo", ErrDocument, line)
	}
	m := Mount{Device: string(f[2]), Root: unescape(f[3]), Point: unescape(f[4]), Type: string(g[0]), Source: unescape(g[1])}
	if len(g) > 2 {
		m.RO = strings.HasPrefix(string(g[2])+",", "ro,")
	}
	return m, nil
}

// unescape undoes what the kernel does to blanks and backslashes: \040.
func unescape(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b)
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+3 < len(b) && octal(b[i+1]) && octal(b[i+2]) && octal(b[i+3]) {
			out = append(out, (b[i+1]-'0')<<6|(b[i+2]-'0')<<3|(b[i+3]-'0'))
			i += 3
			continue
		}
		out = append(out, b[i])
	}
	return string(out)
}

func octal(c byte) bool { return c >= '0' && c <= '7' }

// Local reports whether a mount is of a local block device. Those of major 0 have none of their own (tmpfs, overlay, proc, a network's), but for file systems that
// span several.
func (m *Mount) Local() bool {
	if !strings.HasPrefix(m.Device, "0:") {
		return true
	}
	return m.Spans()
}

// Spans reports whether the file system is of a type that spans devices, and so names none of them by number.
func (m *Mount) Spans() bool { return m.Type == "btrfs" || m.Type == "zfs" || m.Type == "bcachefs" }

// maxPoints is how many mount points of one device are told. A worker of Kubernetes mounts folders of one again and again.
const maxPoints = 16

// localMounts picks the lines of local devices: the first of each, and each other that shows the whole of it or a subvolume. cut says that there were more.
func localMounts(table []byte) (lines [][]byte, cut bool) {
	points := map[string]int{}
	for line := range bytes.Lines(table) {
		line = bytes.TrimRight(line, "\n")
		m, err := ParseMount(line)
		if err != nil || !m.Local() {
			continue
		}
		n := points[m.Device]
		if n > 0 && m.Root != "/" && !m.Spans() {
			continue // a folder that is bound somewhere else, as pods have them
		}
		if n >= maxPoints {
			continue
		}
		if len(line) > MaxMountLine || len(lines) == MaxMountLines {
			cut = true
			continue
		}
		points[m.Device]++
		lines = append(lines, bytes.Clone(line))
	}
	return lines, cut
}

// swaps picks file, type and size of the lines of /proc/swaps: how much is used changes all the time.
func swaps(table []byte) (lines [][]byte, cut bool) {
	for line := range bytes.Lines(table) {
		f := bytes.Fields(line)
		if len(f) < 3 || !bytes.HasPrefix(f[0], []byte("/")) {
			continue // the heading
		}
		s := bytes.Join(f[:3], []byte(" "))
		if len(s) > MaxMountLine || len(lines) == MaxMountLines {
			cut = true
			continue
		}
		lines = append(lines, s)
	}
	return lines, cut
}

// Swap is a line of Volumes.Swaps.
type Swap struct {
	File string // path of a device or a file
	Kind string // partition or file
}

// ParseSwap reads a line of Volumes.Swaps.
func ParseSwap(line []byte) (Swap, error) {
	f := bytes.Fields(line)
	if len(f) != 3 {
		return Swap{}, fmt.Errorf("%w: %.60q is no line of swaps", ErrDocument, line)
	}
	return Swap{File: unescape(f[0]), Kind: string(f[1])}, nil
}
