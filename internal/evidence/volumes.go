package evidence

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// FactVolumes is what a worker keeps data on: the deterministic CBOR of Volumes.
const FactVolumes = "volumes"

// Limits of a fact of volumes. A worker with more says so in Volumes.Cut.
const (
	MaxMountLines = 512       // lines of mounts and swaps, each
	MaxMountLine  = 2 << 10   // bytes of a line
	MaxDevices    = 256       // block devices
	MaxBelow      = 64        // devices right below one
	maxAttribute  = 1 << 10   // bytes of an attribute of a device
	maxVolumes    = 960 << 10 // bytes of all: below MaxFact
)

// Volumes is what a worker says of the volumes that it has mounted or swaps to: lines of the kernel and attributes of sysfs as they are, and headers of encrypted
// devices without what would help to open them (package luks).
type Volumes struct {
	// Mounts are the lines of /proc/1/mountinfo that are of local block devices.
	Mounts [][]byte `cbor:"1,keyasint"`
	// Swaps are file, type and size of the lines of /proc/swaps.
	Swaps   [][]byte      `cbor:"2,keyasint"`
	Devices []BlockDevice `cbor:"3,keyasint"`
	Cut     bool          `cbor:"4,keyasint,omitempty"` // there is more than the limits let through
}

// BlockDevice is /sys/dev/block/MAJOR:MINOR.
type BlockDevice struct {
	Number  string `cbor:"1,keyasint"` // MAJOR:MINOR
	Name    string `cbor:"2,keyasint"` // of the kernel: dm-0, nvme0n1p3
	Sectors uint64 `cbor:"3,keyasint"` // of 512 bytes
	// Below are the numbers of the devices that this one is made of: slaves/, or the disk of a partition.
	Below     []string `cbor:"4,keyasint,omitempty"`
	Partition bool     `cbor:"5,keyasint,omitempty"`
	DMName    []byte   `cbor:"6,keyasint,omitempty"`  // dm/name
	DMUUID    []byte   `cbor:"7,keyasint,omitempty"`  // dm/uuid: says what made it
	RAID      []byte   `cbor:"8,keyasint,omitempty"`  // md/level
	Backing   []byte   `cbor:"9,keyasint,omitempty"`  // loop/backing_file, or backing_dev of zram
	Pool      []byte   `cbor:"10,keyasint,omitempty"` // UUID of the btrfs that spans it and others
	// Header is the stripped LUKS header; HeaderError says why it could not be read, where there should be one.
	Header      []byte `cbor:"11,keyasint,omitempty"`
	HeaderError string `cbor:"12,keyasint,omitempty"`
}

var volumesDecoder = must(cbor.DecOptions{
	DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
	ExtraReturnErrors: cbor.ExtraDecErrorUnknownField, UTF8: cbor.UTF8RejectInvalid,
	MaxNestedLevels: 5, MaxMapPairs: 16, MaxArrayElements: MaxMountLines,
}.DecMode())

// DecodeVolumes reads the fact FactVolumes. The error wraps ErrDocument or ErrLimit.
func DecodeVolumes(b []byte) (*Volumes, error) {
	var v Volumes
	if len(b) > maxVolumes {
		return nil, fmt.Errorf("%w: volumes of %d bytes, at most %d", ErrLimit, len(b), maxVolumes)
	}
	if err := volumesDecoder.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("%w: volumes: %w", ErrDocument, err)
	}
	return &v, v.check()
}

// Encode writes the fact FactVolumes. The error wraps ErrLimit.
func (v *Volumes) Encode() ([]byte, error) {
	if err := v.check(); err != nil {
		return nil, err
	}
	b, err := encoder.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode volumes: %w", err)
	}
	if len(b) > maxVolumes {
		return nil, fmt.Errorf("%w: volumes of %d bytes, at most %d", ErrLimit, len(b), maxVolumes)
	}
	return b, nil
}

func (v *Volumes) check() error {
	var c checks
	for what, lines := range map[string][][]byte{"mounts": v.Mounts, "swaps": v.Swaps} {
		c.most(what, len(lines), MaxMountLines)
		for _, line := range lines {
			c.most("line of "+what, len(line), MaxMountLine)
		}
	}
	if len(v.Devices) > MaxDevices {
		c.fail("%d devices, at most %d", len(v.Devices), MaxDevices)
	}
	for i := range v.Devices {
		d := &v.Devices[i]
		c.between("number of a device", len(d.Number), 32)
		c.most("name of a device", len(d.Name), MaxName)
		c.most("devices below one", len(d.Below), MaxBelow)
		for _, b := range append([][]byte{d.DMName, d.DMUUID, d.RAID, d.Backing, d.Pool, []byte(d.HeaderError)}, numbersOf(d.Below)...) {
			c.most("attribute of a device", len(b), maxAttribute)
		}
	}
	return c.err
}

func numbersOf(below []string) [][]byte {
	out := make([][]byte, len(below))
	for i, s := range below {
		out[i] = []byte(s)
	}
	return out
}
