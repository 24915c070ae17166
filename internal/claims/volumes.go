package claims

import (
	"errors"
	"path"
	"slices"
	"strings"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/luks"
)

// Volumes are what a worker says of where it keeps data. All of it is claimed.
type Volumes struct {
	Told    bool // the worker did say; an agent in a container, and an older one, do not
	Problem string
	Cut     bool // there are more than the worker told
	All     []DataVolume
}

// DataVolume is a file system that is mounted, or swap space.
type DataVolume struct {
	Points []string // mount points; none of swap
	Swap   bool
	Device string // path in /dev
	Type   string // of the file system, "swap"
	Size   uint64 // bytes; 0 when it is not known
	Media  bool   // of a type that is only ever read: no data of this worker come to rest there
	// Encrypted is "yes" when each way down to a disk passes an encryption, and "no" or "unknown" with Why else.
	Encrypted string
	Why       string
	Layers    []string // from the file system down: "dm-crypt", "LVM", "RAID (raid1)", "dm-integrity", "loop", "partition", "disk"
	// Containers are the LUKS volumes below; several below RAID or LVM.
	Containers []Container
}

// What DataVolume.Encrypted says.
const (
	EncryptedYes     = "yes"
	EncryptedNo      = "no"
	EncryptedUnknown = "unknown"
)

// Container is a LUKS volume.
type Container struct {
	Device string // path in /dev of what holds it
	UUID   string
	Header *luks.Header // nil: it could not be read, and Why says why not
	Why    string
}

// Point names the volume for people: its mount point, or what it is.
func (v *DataVolume) Point() string {
	switch {
	case len(v.Points) > 0:
		return v.Points[0]
	case v.Swap:
		return "swap"
	}
	return v.Device
}

// ReadVolumes reads the fact of volumes.
func ReadVolumes(raw map[string][]byte) Volumes {
	b, ok := raw[evidence.FactVolumes]
	if !ok {
		return Volumes{}
	}
	doc, err := evidence.DecodeVolumes(b)
	if err != nil {
		return Volumes{Told: true, Problem: err.Error()}
	}
	s := newStack(doc)
	v := Volumes{Told: true, Cut: doc.Cut}
	byDevice := map[string]int{}
	for _, line := range doc.Mounts {
		m, err := evidence.ParseMount(line)
		if err != nil {
			return Volumes{Told: true, Problem: err.Error()}
		}
		if i, ok := byDevice[m.Device]; ok {
			v.All[i].Points = append(v.All[i].Points, printable(m.Point))
			continue
		}
		byDevice[m.Device] = len(v.All)
		v.All = append(v.All, s.mounted(&m))
	}
	s.volumes = v.All
	s.loops()
	for _, line := range doc.Swaps {
		w, err := evidence.ParseSwap(line)
		if err != nil {
			return Volumes{Told: true, Problem: err.Error()}
		}
		if swap, ok := s.swap(&w); ok {
			v.All = append(v.All, swap)
		}
	}
	slices.SortStableFunc(v.All, func(a, b DataVolume) int { return strings.Compare(a.Point(), b.Point()) })
	return v
}

// media are file systems that are only ever read.
var media = []string{"iso9660", "squashfs", "erofs", "cramfs", "romfs"}

// mounted is the volume of a mount.
func (s *stack) mounted(m *evidence.Mount) DataVolume {
	v := DataVolume{Points: []string{printable(m.Point)}, Type: printable(m.Type), Media: slices.Contains(media, m.Type) || m.Type == "udf" && m.RO}
	number := m.Device
	if m.Spans() {
		if number = s.named(m.Source); number == "" {
			v.Device, v.Encrypted, v.Why = printable(m.Source), EncryptedUnknown, "which devices "+m.Type+" lies on cannot be told"
			return v
		}
	}
	s.describe(&v, number)
	return v
}

// swap is the volume of swap space. In memory there is none.
func (s *stack) swap(w *evidence.Swap) (DataVolume, bool) {
	v := DataVolume{Swap: true, Type: "swap"}
	if w.Kind != "partition" {
		v.Device = printable(w.File)
		s.inherit(&v, w.File)
		v.Layers = append([]string{"file"}, v.Layers...)
		return v, true
	}
	number := s.named(w.File)
	d := s.devices[number]
	switch {
	case d == nil:
		v.Device, v.Encrypted, v.Why = printable(w.File), EncryptedUnknown, "the worker tells nothing of the device"
	case strings.HasPrefix(d.Name, "zram"):
		if b := string(d.Backing); b == "" || b == "none" {
			return v, false
		}
		v.Device, v.Encrypted, v.Why = printable(w.File), EncryptedUnknown, "compressed memory that is written to "+printable(string(d.Backing))
	default:
		s.describe(&v, number)
	}
	return v, true
}

// holder is the volume that a path lies in: that of the longest mount point above it.
func (v *Volumes) holder(name string) *DataVolume {
	var found *DataVolume
	longest := -1
	name = path.Clean("/" + name)
	for i := range v.All {
		for _, p := range v.All[i].Points {
			if (p == "/" || name == p || strings.HasPrefix(name, p+"/")) && len(p) > longest {
				found, longest = &v.All[i], len(p)
			}
		}
	}
	return found
}

// Holder is the volume that a path lies in; nil when none is known.
func (v *Volumes) Holder(name string) *DataVolume { return v.holder(name) }

var errNoHeader = errors.New("the header lies elsewhere, or cannot be read")
