package claims

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/luks/lukstest"
)

// fact is the fact of some volumes.
func fact(t testing.TB, v *evidence.Volumes) map[string][]byte {
	t.Helper()
	b, err := v.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{evidence.FactVolumes: b}
}

func mount(device, point, kind, source string) []byte {
	return fmt.Appendf(nil, "1 0 %s / %s rw,relatime - %s %s rw", device, point, kind, source)
}

// disks are a disk with two partitions, and a LUKS volume on the second one.
func disks(header []byte) []evidence.BlockDevice {
	return []evidence.BlockDevice{
		{Number: "8:0", Name: "sda", Sectors: 4096},
		{Number: "8:1", Name: "sda1", Sectors: 1024, Partition: true, Below: []string{"8:0"}},
		{Number: "8:2", Name: "sda2", Sectors: 2048, Partition: true, Below: []string{"8:0"}, Header: header},
		{Number: "253:0", Name: "dm-0", Sectors: 2000, Below: []string{"8:2"}, DMName: []byte("crypt"), DMUUID: []byte(lukstest.DM)},
		{Number: "8:16", Name: "sdb", Sectors: 4096},
	}
}

func lv(number, name string, below ...string) evidence.BlockDevice {
	return evidence.BlockDevice{Number: number, Name: "dm-" + number[4:], Sectors: 8, Below: below, DMName: []byte(name), DMUUID: []byte("LVM-" + name)}
}

func TestVolumes(t *testing.T) {
	aias := lukstest.Tang("http://aias:7500/n/w", "ours")
	keys := &DiskKeys{Keys: map[string]bool{"ours": false, "old": true}, Escrowed: map[string]bool{lukstest.UUID: true}}
	tests := map[string]struct {
		volumes evidence.Volumes
		point   string
		want    string // encrypted, layers, bindings
		why     string
	}{
		"root on LVM on LUKS": {
			evidence.Volumes{Mounts: [][]byte{mount("253:1", "/", "ext4", "/dev/mapper/vg-root")}, Devices: append(disks(lukstest.Header("", aias)), lv("253:1", "vg-root", "253:0"))},
			"/", "yes; LVM on dm-crypt on partition on disk; passphrase (one is escrowed), AIAS", ""},
		"LVM on LUKS and on a plain disk": {
			evidence.Volumes{Mounts: [][]byte{mount("253:1", "/", "ext4", "x")}, Devices: append(disks(lukstest.Header(aias)), lv("253:1", "vg-root", "253:0", "8:16"))},
			"/", "no; LVM on dm-crypt on partition on disk; AIAS", "/dev/sdb is not encrypted"},
		"EFI system partition": {
			evidence.Volumes{Mounts: [][]byte{mount("8:1", "/boot/efi", "vfat", "/dev/sda1")}, Devices: disks(nil)},
			"/boot/efi", "no; partition on disk; ", "/dev/sda is not encrypted"},
		"the header lies elsewhere": {
			evidence.Volumes{Mounts: [][]byte{mount("253:0", "/data", "xfs", "x")}, Devices: disks(nil)},
			"/data", "yes; dm-crypt on partition on disk; ", ""},
		"rotated key, other Tang, TPM": {
			evidence.Volumes{Mounts: [][]byte{mount("253:0", "/data", "xfs", "x")}, Devices: disks(lukstest.Header(lukstest.Tang("http://aias", "old"), lukstest.Tang("http://tang", "k"), lukstest.TPM2("7"), lukstest.TPM2("")))},
			"/data", "yes; dm-crypt on partition on disk; AIAS (rotated key: bind again), other Tang http://tang, TPM (PCR 7), TPM (no PCR: whatever boots)", ""},
		"shared secret": {
			evidence.Volumes{Mounts: [][]byte{mount("253:0", "/data", "xfs", "x")}, Devices: disks(lukstest.Header(lukstest.Sharing(2, "http://aias", "ours", "0,7")))},
			"/data", "yes; dm-crypt on partition on disk; 2 of [AIAS, TPM (PCR 0,7)]", ""},
		"btrfs over two disks, one is encrypted": {
			evidence.Volumes{Mounts: [][]byte{mount("0:40", "/", "btrfs", "/dev/mapper/crypt")}, Devices: func() []evidence.BlockDevice {
				d := disks(lukstest.Header(aias))
				d[3].Pool, d[4].Pool = []byte("p"), []byte("p")
				return d
			}()},
			"/", "no; dm-crypt on partition on disk; AIAS", "/dev/sdb is not encrypted"},
		"a file on an encrypted volume": {
			evidence.Volumes{Mounts: [][]byte{mount("253:0", "/", "ext4", "x"), mount("7:0", "/mnt", "ext4", "/dev/loop0")},
				Devices: append(disks(lukstest.Header(aias)), evidence.BlockDevice{Number: "7:0", Name: "loop0", Sectors: 8, Backing: []byte("/var/img")})},
			"/mnt", "yes; loop; AIAS", ""},
		"a file on a plain volume": {
			evidence.Volumes{Mounts: [][]byte{mount("8:16", "/", "ext4", "x"), mount("7:0", "/mnt", "ext4", "/dev/loop0")},
				Devices: append(disks(nil), evidence.BlockDevice{Number: "7:0", Name: "loop0", Sectors: 8, Backing: []byte("/var/img")})},
			"/mnt", "no; loop; ", "/dev/sdb is not encrypted"},
		"a file in itself": {
			evidence.Volumes{Mounts: [][]byte{mount("7:0", "/", "ext4", "/dev/loop0")}, Devices: []evidence.BlockDevice{{Number: "7:0", Name: "loop0", Backing: []byte("/img")}}},
			"/", "unknown; loop; ", "does not say where the file /img lies"},
		"RAID": {
			evidence.Volumes{Mounts: [][]byte{mount("9:0", "/", "ext4", "x")}, Devices: append(disks(lukstest.Header(aias)), evidence.BlockDevice{Number: "9:0", Name: "md0", RAID: []byte("raid1"), Below: []string{"253:0", "8:16"}})},
			"/", "no; RAID (raid1) on dm-crypt on partition on disk; AIAS", "/dev/sdb is not encrypted"},
		"swap in a partition": {
			evidence.Volumes{Swaps: [][]byte{[]byte("/dev/dm-0 partition 1024")}, Devices: disks(lukstest.Header(aias))},
			"swap", "yes; dm-crypt on partition on disk; AIAS", ""},
		"swap in a file": {
			evidence.Volumes{Mounts: [][]byte{mount("8:16", "/", "ext4", "x")}, Swaps: [][]byte{[]byte("/swap.img file 1024")}, Devices: disks(nil)},
			"swap", "no; file; ", "/dev/sdb is not encrypted"},
		"network": {
			evidence.Volumes{Mounts: [][]byte{mount("252:0", "/pv", "ext4", "/dev/rbd0")}, Devices: []evidence.BlockDevice{{Number: "252:0", Name: "rbd0"}}},
			"/pv", "unknown; disk; ", "lies elsewhere"},
		"a ring": {
			evidence.Volumes{Mounts: [][]byte{mount("253:1", "/", "ext4", "x")}, Devices: []evidence.BlockDevice{lv("253:1", "a", "253:2"), lv("253:2", "b", "253:1")}},
			"/", "unknown; LVM; ", "no disk"},
		"nothing of the device": {
			evidence.Volumes{Mounts: [][]byte{mount("253:1", "/", "ext4", "x")}}, "/", "unknown; ; ", "tells nothing"},
		"zfs": {
			evidence.Volumes{Mounts: [][]byte{mount("0:44", "/tank", "zfs", "tank/data")}}, "/tank", "unknown; ; ", "zfs"},
		"damaged header": {
			evidence.Volumes{Mounts: [][]byte{mount("253:0", "/", "ext4", "x")}, Devices: disks(lukstest.Header(aias)[:5000][:4100])}, "/", "yes; dm-crypt on partition on disk; ", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			v := ReadVolumes(fact(t, &tt.volumes))
			if v.Problem != "" || !v.Told {
				t.Fatalf("got %+v", v)
			}
			i := slices.IndexFunc(v.All, func(v DataVolume) bool { return v.Point() == tt.point })
			if i < 0 {
				t.Fatalf("no volume %s in %+v", tt.point, v.All)
			}
			w := &v.All[i]
			var bindings []string
			for i := range w.Containers {
				bindings = append(bindings, keys.Bindings(&w.Containers[i])...)
			}
			got := w.Encrypted + "; " + strings.Join(w.Layers, " on ") + "; " + strings.Join(bindings, ", ")
			if got != tt.want || !strings.Contains(w.Why, tt.why) || tt.why == "" && w.Why != "" {
				t.Errorf("got %q (%s), want %q (%s)", got, w.Why, tt.want, tt.why)
			}
		})
	}
}

func TestNoVolumes(t *testing.T) {
	if v := ReadVolumes(nil); v.Told || v.Problem != "" {
		t.Errorf("no fact: got %+v, want nothing told", v)
	}
	if v := ReadVolumes(map[string][]byte{evidence.FactVolumes: []byte("x")}); !v.Told || v.Problem == "" {
		t.Errorf("a fact that cannot be read: got %+v, want a problem", v)
	}
	v := ReadVolumes(fact(t, &evidence.Volumes{Mounts: [][]byte{[]byte("no mount")}}))
	if v.Problem == "" {
		t.Errorf("a line that is no mount: got %+v, want a problem", v)
	}
	// Compressed memory is not at rest.
	zram := evidence.Volumes{Swaps: [][]byte{[]byte("/dev/zram0 partition 1024")}, Devices: []evidence.BlockDevice{{Number: "252:0", Name: "zram0", Backing: []byte("none")}}}
	if v := ReadVolumes(fact(t, &zram)); len(v.All) != 0 {
		t.Errorf("zram: got %+v, want no volume", v.All)
	}
}

// TestVolumesHostile: the largest knot of devices that a worker can tell of is followed in a moment.
func TestVolumesHostile(t *testing.T) {
	var v evidence.Volumes
	for i := range evidence.MaxDevices {
		d := evidence.BlockDevice{Number: fmt.Sprintf("9:%d", i), Name: fmt.Sprintf("md%d", i), DMUUID: []byte("CRYPT-LUKS2-0-x")}
		for j := range evidence.MaxBelow {
			d.Below = append(d.Below, fmt.Sprintf("9:%d", (i*7+j*3+1)%evidence.MaxDevices))
		}
		v.Devices = append(v.Devices, d)
	}
	for i := range evidence.MaxMountLines {
		v.Mounts = append(v.Mounts, mount(fmt.Sprintf("9:%d", i%evidence.MaxDevices), fmt.Sprintf("/m%d", i), "ext4", "x"))
	}
	b := fact(t, &v)
	start := time.Now()
	ReadVolumes(b)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}
