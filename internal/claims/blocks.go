package claims

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/luks"
)

// stack is the block devices of a worker, each on others.
type stack struct {
	devices map[string]*evidence.BlockDevice // by number
	order   []string
	volumes []DataVolume
	headers map[string]parsedHeader
	visited map[string]bool // of one walk
	steps   int             // of all walks
	ends    int             // disks that one walk came to
}

// parsedHeader is a header that several volumes share.
type parsedHeader struct {
	header *luks.Header
	err    error
}

// maxSteps bounds the work that a worker can make with devices that lie on one another: real ones come to a few hundred.
const maxSteps = 1 << 14

func newStack(doc *evidence.Volumes) *stack {
	s := &stack{devices: make(map[string]*evidence.BlockDevice, len(doc.Devices)), headers: map[string]parsedHeader{}}
	for i := range doc.Devices {
		d := &doc.Devices[i]
		if s.devices[d.Number] == nil {
			s.order = append(s.order, d.Number)
		}
		s.devices[d.Number] = d
	}
	return s
}

// named is the number of a device by its path: /dev/sda2, /dev/mapper/NAME.
func (s *stack) named(file string) string {
	for _, n := range s.order {
		d := s.devices[n]
		if file == "/dev/"+d.Name || len(d.DMName) > 0 && file == "/dev/mapper/"+string(d.DMName) {
			return n
		}
	}
	// /dev/VG/LV, by the name that LVM gives: a dash in either is doubled.
	if vg, lv := path.Split(strings.TrimPrefix(file, "/dev/")); vg != "" {
		name := strings.ReplaceAll(strings.TrimSuffix(vg, "/"), "-", "--") + "-" + strings.ReplaceAll(lv, "-", "--")
		for _, n := range s.order {
			if string(s.devices[n].DMName) == name {
				return n
			}
		}
	}
	return ""
}

// describe says what a volume on a device stands on.
func (s *stack) describe(v *DataVolume, number string) {
	d := s.devices[number]
	if d == nil {
		v.Device, v.Encrypted, v.Why = number, EncryptedUnknown, "the worker tells nothing of the device"
		return
	}
	v.Device = pathOf(d)
	v.Size = d.Sectors * 512
	if d.Sectors > 1<<54 {
		v.Size = 0
	}
	v.Encrypted, v.Why = EncryptedYes, ""
	s.visited = map[string]bool{}
	s.ends = 0
	for _, n := range s.pool(d) {
		s.walk(v, n, false)
	}
	if s.ends == 0 {
		v.worse(EncryptedUnknown, "the devices below lead to no disk")
	}
}

// pool are the devices that a file system on d spans: all of its btrfs.
func (s *stack) pool(d *evidence.BlockDevice) []string {
	if len(d.Pool) == 0 {
		return []string{d.Number}
	}
	var out []string
	for _, n := range s.order {
		if string(s.devices[n].Pool) == string(d.Pool) {
			out = append(out, n)
		}
	}
	return out
}

func pathOf(d *evidence.BlockDevice) string {
	if len(d.DMName) > 0 {
		return "/dev/mapper/" + printable(string(d.DMName))
	}
	return "/dev/" + printable(d.Name)
}

// walk goes down from a device. Each device is gone through once for each volume, encrypted or not, so that no graph of a worker's takes long.
func (s *stack) walk(v *DataVolume, number string, encrypted bool) {
	key := fmt.Sprint(number, encrypted)
	if s.visited[key] {
		return
	}
	s.visited[key] = true
	if s.steps++; s.steps > maxSteps {
		v.worse(EncryptedUnknown, "the worker tells of more devices on one another than are followed")
		return
	}
	d := s.devices[number]
	if d == nil {
		if !encrypted {
			v.worse(EncryptedUnknown, "the worker tells nothing of device "+printable(number))
		}
		return
	}
	layer := layerOf(d)
	if !slices.Contains(v.Layers, layer) {
		v.Layers = append(v.Layers, layer)
	}
	if uuid, ok := crypt(d); ok {
		s.container(v, d, uuid)
		encrypted = true
	}
	if len(d.Below) == 0 {
		if s.ends++; !encrypted {
			v.bottom(d)
		}
	}
	for _, below := range d.Below {
		s.walk(v, below, encrypted)
	}
}

// bottom judges a way down that ended without encryption.
func (v *DataVolume) bottom(d *evidence.BlockDevice) {
	switch {
	case len(d.Backing) > 0: // a file: loops decides
		v.worse(EncryptedUnknown, backedBy+printable(string(d.Backing)))
	case networked(d.Name):
		v.worse(EncryptedUnknown, pathOf(d)+" lies elsewhere on the network")
	default:
		v.worse(EncryptedNo, pathOf(d)+" is not encrypted")
	}
}

const backedBy = "it lies in the file "

// networked reports whether a device is no disk of this worker by its name.
func networked(name string) bool {
	return strings.HasPrefix(name, "rbd") || strings.HasPrefix(name, "nbd") || strings.HasPrefix(name, "drbd")
}

// worse takes an answer over that is worse than the one so far.
func (v *DataVolume) worse(answer, why string) {
	rank := []string{EncryptedYes, EncryptedUnknown, EncryptedNo}
	if slices.Index(rank, answer) > slices.Index(rank, v.Encrypted) {
		v.Encrypted, v.Why = answer, why
	}
}

// crypt reports whether a device is dm-crypt, and the UUID of its LUKS volume without dashes, "" for one without a header. libcryptsetup names its devices
// CRYPT-TYPE-UUID-NAME.
func crypt(d *evidence.BlockDevice) (uuid string, ok bool) {
	rest, ok := strings.CutPrefix(string(d.DMUUID), "CRYPT-")
	if !ok {
		return "", false
	}
	kind, rest, _ := strings.Cut(rest, "-")
	switch kind {
	case "LUKS1", "LUKS2":
		uuid, _, _ = strings.Cut(rest, "-")
		return uuid, true
	case "PLAIN", "LOOPAES", "TCRYPT", "BITLK", "FVAULT2":
		return "", true
	}
	return "", false // VERITY, INTEGRITY, SUBDEV: no encryption
}

// layerOf names what a device is.
func layerOf(d *evidence.BlockDevice) string {
	uuid := string(d.DMUUID)
	for _, l := range []struct{ prefix, name string }{
		{"CRYPT-VERITY-", "dm-verity"}, {"CRYPT-INTEGRITY-", "dm-integrity"}, {"CRYPT-SUBDEV-", "dm-integrity"}, {"CRYPT-", "dm-crypt"},
		{"LVM-", "LVM"}, {"mpath-", "multipath"}, {"part", "partition"},
	} {
		if strings.HasPrefix(uuid, l.prefix) {
			return l.name
		}
	}
	switch {
	case len(d.DMName) > 0:
		return "device-mapper"
	case len(d.RAID) > 0:
		return "RAID (" + printable(string(d.RAID)) + ")"
	case d.Partition:
		return "partition"
	case strings.HasPrefix(d.Name, "loop"):
		return "loop"
	}
	return "disk"
}

// container adds the LUKS volume of a dm-crypt device.
func (s *stack) container(v *DataVolume, d *evidence.BlockDevice, uuid string) {
	c := Container{Device: pathOf(d), Why: "dm-crypt without a header: where its key comes from cannot be told"}
	if uuid != "" {
		c.UUID, c.Why = printable(dashed(uuid)), errNoHeader.Error()
		s.findHeader(&c, d, uuid, 0)
	}
	if !slices.ContainsFunc(v.Containers, func(o Container) bool { return o.Device == c.Device && o.UUID == c.UUID }) {
		v.Containers = append(v.Containers, c)
	}
	if c.Header != nil && c.Header.Plain != "" {
		v.worse(EncryptedNo, c.Header.Plain)
	}
}

// findHeader looks for the header of a LUKS volume below its dm-crypt device.
func (s *stack) findHeader(c *Container, d *evidence.BlockDevice, uuid string, depth int) {
	for _, n := range d.Below {
		below := s.devices[n]
		if below == nil || depth > 2 {
			continue
		}
		if layerOf(below) == "dm-integrity" {
			s.findHeader(c, below, uuid, depth+1)
			continue
		}
		if c.Header == nil {
			c.Device = pathOf(below)
		}
		switch h, err := s.header(below); {
		case err != nil:
			c.Why = printable(err.Error())
		case strings.ReplaceAll(h.UUID, "-", "") != uuid:
			c.Why = "the header on " + pathOf(below) + " is of another volume"
		default:
			c.Header, c.Why = h, ""
		}
	}
}

// header is the header on a device, read once.
func (s *stack) header(d *evidence.BlockDevice) (*luks.Header, error) {
	p, ok := s.headers[d.Number]
	if !ok {
		p.header, p.err = readHeader(d)
		s.headers[d.Number] = p
	}
	return p.header, p.err
}

func readHeader(d *evidence.BlockDevice) (*luks.Header, error) {
	switch {
	case d.HeaderError != "":
		return nil, fmt.Errorf("%w: %s", errNoHeader, d.HeaderError)
	case len(d.Header) == 0:
		return nil, errNoHeader
	case len(d.Header) > luks.MaxStripped:
		return nil, fmt.Errorf("%w: it is larger than it may be", errNoHeader)
	}
	return luks.Parse(d.Header)
}

// dashed writes a UUID with its dashes.
func dashed(u string) string {
	if len(u) != 32 {
		return u
	}
	return strings.Join([]string{u[:8], u[8:12], u[12:16], u[16:20], u[20:]}, "-")
}

// maxLoops bounds files within files within files.
const maxLoops = 8

// loops decides on volumes in files: they are encrypted when the volume is that the file lies in.
func (s *stack) loops() {
	for range maxLoops {
		changed := false
		for i := range s.volumes {
			v := &s.volumes[i]
			if file, ok := strings.CutPrefix(v.Why, backedBy); ok && v.Encrypted == EncryptedUnknown {
				changed = s.inherit(v, file) || changed
			}
		}
		if !changed {
			return
		}
	}
}

// inherit takes over what is known of the volume that a file lies in, and reports whether that is anything new.
func (s *stack) inherit(v *DataVolume, file string) bool {
	all := Volumes{All: s.volumes}
	h := all.holder(file)
	if h == nil || h == v {
		v.Encrypted, v.Why = EncryptedUnknown, "the worker does not say where the file "+printable(file)+" lies"
		return false
	}
	if strings.HasPrefix(h.Why, backedBy) {
		return false // not decided itself
	}
	v.Encrypted, v.Why, v.Containers = h.Encrypted, h.Why, h.Containers
	return true
}

// printable makes a worker's text fit to be shown.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0xfffd {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
