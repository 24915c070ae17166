package evidence

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"touchstone.dev/touchstone/internal/luks"
)

// Paths below the root of a worker.
const (
	mountsPath = "proc/1/mountinfo"
	swapsPath  = "proc/swaps"
	blockPath  = "sys/dev/block"
	classPath  = "sys/class/block"
	btrfsPath  = "sys/fs/btrfs"
)

const (
	maxMounts   = 16 << 20        // bytes of mountinfo
	headerTime  = 3 * time.Second // how long the header of one device may take: a disk that fails must not hold up the attestation
	volumesLife = 10 * time.Minute
)

// VolumeReader reads the fact FactVolumes of one worker again and again. Looking whether something changed costs two files and the first sector of each encrypted
// device; only then, and every ten minutes, the rest is read. It is for one goroutine at a time.
type VolumeReader struct {
	root, mounts string

	stamp   [sha256.Size]byte
	read    time.Time
	fact    []byte
	headers []string          // names of the devices with a header
	waiting map[string]func() // by name: devices that have not answered yet
}

// NewVolumeReader returns the reader of the worker whose file system has its root at root. mounts is the table of mounts below it, "" for that of process 1: an agent in a
// container has one of its own, which tells nothing of the worker.
func NewVolumeReader(root, mounts string) *VolumeReader {
	if mounts == "" {
		mounts = mountsPath
	}
	return &VolumeReader{root: filepath.Join("/", root), mounts: mounts, waiting: map[string]func(){}}
}

// ReadVolumes reads the fact once.
func ReadVolumes(root, mounts string) ([]byte, error) {
	return NewVolumeReader(root, mounts).Fact(time.Now())
}

// Fact returns the fact, nil when the worker has no table of mounts that could be read.
func (r *VolumeReader) Fact(now time.Time) ([]byte, error) {
	table, err := readFile(filepath.Join(r.root, r.mounts), maxMounts)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", errAbsent, reason(err))
	}
	var v Volumes
	var cut bool
	v.Mounts, v.Cut = localMounts(table)
	table, _ = readFile(filepath.Join(r.root, swapsPath), maxMounts) // a kernel without swap has none
	v.Swaps, cut = swaps(table)
	v.Cut = v.Cut || cut
	stamp := r.stampOf(&v)
	if r.fact != nil && stamp == r.stamp && now.Sub(r.read) < volumesLife {
		return r.fact, nil
	}
	r.devices(&v)
	if r.fact, err = v.Encode(); err != nil {
		return nil, err
	}
	r.read, r.stamp = now, r.stampOf(&v)
	return r.fact, nil
}

// stampOf changes when a mount, a swap, or the first sector of a header does: sequence and checksum of LUKS2, the key slots of LUKS1.
func (r *VolumeReader) stampOf(v *Volumes) [sha256.Size]byte {
	h := sha256.New()
	for _, lines := range [][][]byte{v.Mounts, v.Swaps} {
		for _, line := range lines {
			fmt.Fprintf(h, "%q\n", line)
		}
	}
	for _, name := range r.headers {
		b, err := r.within(name, func(f *os.File) ([]byte, error) {
			b := make([]byte, 1024)
			_, err := f.ReadAt(b, 0)
			return b, err
		})
		fmt.Fprintf(h, "%s %x %t\n", name, b, err != nil)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// devices reads the devices that mounts and swaps stand on, down to the disks, and their headers.
func (r *VolumeReader) devices(v *Volumes) {
	at := map[string]int{}
	add := func(number string) {
		if _, seen := at[number]; seen || number == "" {
			return
		}
		if len(v.Devices) == MaxDevices {
			v.Cut = true
			return
		}
		if d, ok := r.device(number); ok {
			at[number] = len(v.Devices)
			v.Devices = append(v.Devices, d)
		}
	}
	r.first(v, add)
	for i := 0; i < len(v.Devices); i++ {
		for _, below := range v.Devices[i].Below {
			add(below)
		}
	}
	r.pools(v, at)
	r.headers = nil
	for _, i := range r.encrypted(v, at) {
		r.header(&v.Devices[i])
		r.headers = append(r.headers, v.Devices[i].Name)
	}
	slices.SortFunc(v.Devices, func(a, b BlockDevice) int { return strings.Compare(a.Number, b.Number) })
}

// first are the devices that are mounted or swapped to, and the members of every btrfs.
func (r *VolumeReader) first(v *Volumes, add func(number string)) {
	for _, line := range v.Mounts {
		if m, err := ParseMount(line); err == nil && !m.Spans() {
			add(m.Device)
		}
	}
	for _, line := range v.Swaps {
		if s, err := ParseSwap(line); err == nil && s.Kind == "partition" {
			add(r.number(filepath.Base(s.File)))
		}
	}
	for _, path := range r.members() {
		add(r.number(filepath.Base(path)))
	}
}

// members are the paths below /sys/fs/btrfs/UUID/devices.
func (r *VolumeReader) members() []string {
	paths, _ := filepath.Glob(filepath.Join(r.root, btrfsPath, "*", "devices", "*"))
	return paths[:min(len(paths), MaxDevices)]
}

// pools notes which btrfs a device belongs to.
func (r *VolumeReader) pools(v *Volumes, at map[string]int) {
	for _, path := range r.members() {
		if i, ok := at[r.number(filepath.Base(path))]; ok {
			v.Devices[i].Pool = bounds([]byte(filepath.Base(filepath.Dir(filepath.Dir(path)))))
		}
	}
}

// number is MAJOR:MINOR of a device by the kernel's name for it.
func (r *VolumeReader) number(name string) string {
	return strings.TrimSpace(string(r.attribute(filepath.Join(classPath, name, "dev"))))
}

// attribute reads a file of sysfs, without the line feed; nil when it is not there.
func (r *VolumeReader) attribute(path string) []byte {
	b, err := readFile(filepath.Join(r.root, path), MaxStructure)
	if err != nil {
		return nil
	}
	return bounds(bytes.TrimRight(b, "\n"))
}

func bounds(b []byte) []byte { return b[:min(len(b), maxAttribute)] }

// device reads what sysfs says of a device.
func (r *VolumeReader) device(number string) (BlockDevice, bool) {
	dir := filepath.Join(blockPath, number)
	target, err := os.Readlink(filepath.Join(r.root, dir))
	if err != nil || strings.Contains(number, "/") {
		return BlockDevice{}, false
	}
	d := BlockDevice{Number: number, Name: strings.ToValidUTF8(string(bounds([]byte(filepath.Base(target)))), "?")}
	d.Name = d.Name[:min(len(d.Name), MaxName)]
	d.Sectors, _ = strconv.ParseUint(string(r.attribute(filepath.Join(dir, "size"))), 10, 64)
	d.DMName, d.DMUUID, d.RAID = r.attribute(filepath.Join(dir, "dm/name")), r.attribute(filepath.Join(dir, "dm/uuid")), r.attribute(filepath.Join(dir, "md/level"))
	if d.Backing = r.attribute(filepath.Join(dir, "loop/backing_file")); d.Backing == nil {
		d.Backing = r.attribute(filepath.Join(dir, "backing_dev"))
	}
	if below, err := os.ReadDir(filepath.Join(r.root, dir, "slaves")); err == nil {
		for _, e := range below[:min(len(below), MaxBelow)] {
			d.Below = append(d.Below, r.number(e.Name()))
		}
	}
	if d.Partition = r.attribute(filepath.Join(dir, "partition")) != nil; d.Partition {
		// The folder of a partition lies in that of its disk: below the device that the link leads to, not below the link.
		if b, err := readFile(filepath.Join(r.root, blockPath, target, "../dev"), MaxStructure); err == nil {
			d.Below = append(d.Below, string(bounds(bytes.TrimSpace(b))))
		}
	}
	d.Below = slices.DeleteFunc(d.Below, func(s string) bool { return s == "" })
	return d, true
}

// encrypted are the devices right below dm-crypt, or below what dm-crypt put under itself (dm-integrity): there the header is, unless it lies elsewhere.
func (r *VolumeReader) encrypted(v *Volumes, at map[string]int) []int {
	var out []int
	seen := map[int]bool{}
	var descend func(d *BlockDevice, depth int)
	descend = func(d *BlockDevice, depth int) {
		for _, below := range d.Below {
			i, ok := at[below]
			if !ok || seen[i] {
				continue
			}
			seen[i] = true
			if b := &v.Devices[i]; depth < 2 && (bytes.HasPrefix(b.DMUUID, []byte("CRYPT-INTEGRITY-")) || bytes.HasPrefix(b.DMUUID, []byte("CRYPT-SUBDEV-"))) {
				descend(b, depth+1)
				continue
			}
			out = append(out, i)
		}
	}
	for i := range v.Devices {
		if bytes.HasPrefix(v.Devices[i].DMUUID, []byte("CRYPT-LUKS")) {
			descend(&v.Devices[i], 0)
		}
	}
	return out
}

// header reads the header of a device, and leaves out what would help to open it.
func (r *VolumeReader) header(d *BlockDevice) {
	b, err := r.within(d.Name, func(f *os.File) ([]byte, error) { return luks.Read(f) })
	if err == nil {
		b, err = luks.Strip(b)
	}
	if err != nil {
		d.HeaderError = strings.ToValidUTF8(string(bounds([]byte(reason(err)))), "?")
		return
	}
	d.Header = b
}

var errSlow = errors.New("the device does not answer")

// within reads from a device, which may take headerTime. One that did not answer yet is not asked again.
func (r *VolumeReader) within(name string, read func(*os.File) ([]byte, error)) ([]byte, error) {
	if poll := r.waiting[name]; poll != nil {
		if poll(); r.waiting[name] != nil {
			return nil, errSlow
		}
	}
	type answer struct {
		b   []byte
		err error
	}
	done := make(chan answer, 1)
	go func() {
		// Nothing must hold up the opening, and what lies in /dev is a device or nothing.
		f, err := os.OpenFile(filepath.Join(r.root, "dev", strings.ReplaceAll(name, "!", "/")), os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
		if err != nil {
			done <- answer{err: err}
			return
		}
		defer f.Close()
		b, err := read(f)
		done <- answer{b, err}
	}()
	select {
	case a := <-done:
		return a.b, a.err
	case <-time.After(headerTime):
		r.waiting[name] = func() {
			select {
			case <-done:
				delete(r.waiting, name)
			default:
			}
		}
		return nil, errSlow
	}
}
