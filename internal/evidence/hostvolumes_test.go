package evidence

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// put writes a file below a root.
func put(t testing.TB, root, name, content string) {
	t.Helper()
	name = filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// block makes a device as sysfs has it: its folder, the link by number and the one by name.
func block(t testing.TB, root, number, folder string, attributes map[string]string, slaves ...string) {
	t.Helper()
	dir := "sys/devices/" + folder
	put(t, root, dir+"/dev", number+"\n")
	for name, value := range attributes {
		put(t, root, dir+"/"+name, value+"\n")
	}
	for link, target := range map[string]string{"sys/dev/block/" + number: "../../devices/" + folder, "sys/class/block/" + filepath.Base(folder): "../../devices/" + folder} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, link)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(root, dir, "slaves"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, s := range slaves {
		if err := os.Symlink("../../"+s, filepath.Join(root, dir, "slaves", s)); err != nil {
			t.Fatal(err)
		}
	}
}

const mountTable = `22 28 0:21 / /sys rw,nosuid - sysfs sysfs rw
28 1 253:1 / / rw,relatime shared:1 - ext4 /dev/mapper/root rw
29 28 0:25 / /run rw - tmpfs tmpfs rw
31 28 8:1 / /boot/efi rw - vfat /dev/sda1 rw
40 28 253:1 /var/lib/kubelet/pods/1/etc-hosts /var/lib/containers/1/hosts rw - ext4 /dev/mapper/root rw
41 28 0:60 / /var/lib/containers/1/merged rw - overlay overlay rw
42 28 253:1 / /mnt/with\040blank rw - ext4 /dev/mapper/root rw
`

// volumesHost is a worker with a root on LUKS on a partition, swap in it, and an EFI system partition.
func volumesHost(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	put(t, root, "proc/1/mountinfo", mountTable)
	put(t, root, "proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/dev/dm-1 partition 1024 77 -2\n")
	block(t, root, "8:0", "pci/sda", map[string]string{"size": "4096"})
	block(t, root, "8:1", "pci/sda/sda1", map[string]string{"size": "1024", "partition": "1"})
	block(t, root, "8:2", "pci/sda/sda2", map[string]string{"size": "2048", "partition": "2"})
	block(t, root, "253:0", "virtual/block/dm-0", map[string]string{"size": "2000", "dm/name": "crypt", "dm/uuid": "CRYPT-LUKS2-0123-crypt"}, "sda2")
	block(t, root, "253:1", "virtual/block/dm-2", map[string]string{"size": "1500", "dm/name": "root", "dm/uuid": "LVM-abc"}, "dm-0")
	block(t, root, "253:2", "virtual/block/dm-1", map[string]string{"size": "500", "dm/name": "swap", "dm/uuid": "LVM-def"}, "dm-0")
	put(t, root, "dev/sda2", strings.Repeat("no header", 1000))
	return root
}

func TestVolumes(t *testing.T) {
	b, err := ReadVolumes(volumesHost(t), "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeVolumes(b)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(mountTable, "\n")
	want := &Volumes{
		Mounts: [][]byte{[]byte(lines[1]), []byte(lines[3]), []byte(lines[6])},
		Swaps:  [][]byte{[]byte("/dev/dm-1 partition 1024")},
		Devices: []BlockDevice{
			{Number: "253:0", Name: "dm-0", Sectors: 2000, Below: []string{"8:2"}, DMName: []byte("crypt"), DMUUID: []byte("CRYPT-LUKS2-0123-crypt")},
			{Number: "253:1", Name: "dm-2", Sectors: 1500, Below: []string{"253:0"}, DMName: []byte("root"), DMUUID: []byte("LVM-abc")},
			{Number: "253:2", Name: "dm-1", Sectors: 500, Below: []string{"253:0"}, DMName: []byte("swap"), DMUUID: []byte("LVM-def")},
			{Number: "8:0", Name: "sda", Sectors: 4096},
			{Number: "8:1", Name: "sda1", Sectors: 1024, Partition: true, Below: []string{"8:0"}},
			{Number: "8:2", Name: "sda2", Sectors: 2048, Partition: true, Below: []string{"8:0"}, HeaderError: "no LUKS header"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("volumes (-want +got):\n%s", diff)
	}
}

// TestVolumesAgain: what did not change is not read again; a new mount, and a header that was written, are seen at once.
func TestVolumesAgain(t *testing.T) {
	root := volumesHost(t)
	r := NewVolumeReader(root, "/proc/1/mountinfo")
	at := time.Unix(1e9, 0)
	read := func() string {
		t.Helper()
		b, err := r.Fact(at)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	first := read()
	put(t, root, "sys/devices/pci/sda/size", "9999\n")
	put(t, root, "proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/dev/dm-1 partition 1024 99 -2\n")
	if read() != first {
		t.Error("read again, though neither mounts nor headers changed")
	}
	put(t, root, "dev/sda2", "LUKS\xba\xbe\x00\x03"+strings.Repeat("x", 2000))
	second := read()
	if second == first {
		t.Error("a header that was written is not seen")
	}
	put(t, root, "proc/1/mountinfo", mountTable+"50 28 8:0 / /srv rw - ext4 /dev/sda rw\n")
	if read() == second {
		t.Error("a new mount is not seen")
	}
	put(t, root, "sys/devices/pci/sda/size", "5\n")
	third := read()
	if at = at.Add(volumesLife); read() == third {
		t.Error("after a while it is read anyway: got the same")
	}
	if _, err := ReadVolumes(t.TempDir(), ""); err == nil {
		t.Error("a host without a table of mounts: got no error")
	}
}

// TestVolumesBounds: a table of mounts as long as a worker with thousands of pods has it, and one line too long.
func TestVolumesBounds(t *testing.T) {
	root := volumesHost(t)
	var table strings.Builder
	table.WriteString(mountTable)
	for range 20000 {
		table.WriteString("40 28 253:1 /var/lib/kubelet/pods/1/etc-hosts /var/lib/containers/1/hosts rw - ext4 /dev/mapper/root rw\n")
	}
	put(t, root, "proc/1/mountinfo", table.String())
	b, err := ReadVolumes(root, "")
	if err != nil {
		t.Fatal(err)
	}
	if v, err := DecodeVolumes(b); err != nil || len(v.Mounts) != 3 || v.Cut {
		t.Errorf("bind mounts of pods: got %v and %v, want three lines", v, err)
	}
	put(t, root, "proc/1/mountinfo", mountTable+"50 28 8:0 / /"+strings.Repeat("x", MaxMountLine)+" rw - ext4 /dev/sda rw\nno line\n")
	if b, err = ReadVolumes(root, ""); err != nil {
		t.Fatal(err)
	}
	if v, err := DecodeVolumes(b); err != nil || len(v.Mounts) != 3 || !v.Cut {
		t.Errorf("a line that is too long: got %v and %v, want three lines, and told that there is more", v, err)
	}
	for n := range b {
		if _, err := DecodeVolumes(b[:n]); err == nil {
			t.Fatalf("cut off after %d bytes: got no error", n)
		}
	}
}

func TestParseMount(t *testing.T) {
	m, err := ParseMount([]byte(`36 35 98:0 /mnt1 /mnt\0402\134x rw,noatime master:1 - ext3 /dev/root ro,errors=continue`))
	want := Mount{Device: "98:0", Root: "/mnt1", Point: `/mnt 2\x`, Type: "ext3", Source: "/dev/root", RO: true}
	if err != nil || m != want {
		t.Errorf("ParseMount: got %+v and %v, want %+v", m, err, want)
	}
	for _, bad := range []string{"", " - ", "1 2 3:4 / / rw ext4 /dev/sda rw", "1 2 3:4 / - ext4 x"} {
		if m, err := ParseMount([]byte(bad)); err == nil {
			t.Errorf("ParseMount(%q): got %+v, want an error", bad, m)
		}
	}
}

// BenchmarkVolumes is what an attestation costs whose volumes did not change: 300 bind mounts of pods.
func BenchmarkVolumes(b *testing.B) {
	root := volumesHost(b)
	put(b, root, "proc/1/mountinfo", mountTable+strings.Repeat("40 28 253:1 /var/lib/kubelet/pods/1/etc-hosts /var/lib/containers/1/hosts rw - ext4 /dev/mapper/root rw\n", 300))
	for name, life := range map[string]time.Duration{"unchanged": 0, "whole": volumesLife} {
		b.Run(name, func(b *testing.B) {
			r, at := NewVolumeReader(root, ""), time.Unix(1e9, 0)
			for b.Loop() {
				if _, err := r.Fact(at); err != nil {
					b.Fatal(err)
				}
				at = at.Add(life)
			}
		})
	}
}

func FuzzDecodeVolumes(f *testing.F) {
	b, err := (&Volumes{Mounts: [][]byte{[]byte(mountTable)}, Devices: []BlockDevice{{Number: "8:0", Name: "sda"}}}).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := DecodeVolumes(b)
		if err != nil {
			return
		}
		for _, line := range v.Mounts {
			_, _ = ParseMount(line)
		}
		for _, line := range v.Swaps {
			_, _ = ParseSwap(line)
		}
	})
}
