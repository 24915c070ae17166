package authority

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/luks"
	"touchstone.dev/touchstone/internal/protocol"
)

// luksHeader is the header of a disk as an agent sends it.
func luksHeader(t testing.TB, disk string) []byte {
	t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := luks.Read(f)
	if err == nil {
		b, err = luks.Strip(b)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// mounts makes m a machine whose root is a LUKS volume with the header of disk.
func (m *machine) mounts(disk string) {
	m.w.t.Helper()
	header := luksHeader(m.w.t, disk)
	h, err := luks.Parse(header)
	if err != nil {
		m.w.t.Fatal(err)
	}
	v := evidence.Volumes{
		Mounts: [][]byte{[]byte("28 1 253:0 / / rw - ext4 /dev/mapper/root rw")},
		Devices: []evidence.BlockDevice{
			{Number: "8:2", Name: "sda2", Sectors: 65536, Header: header},
			{Number: "253:0", Name: "dm-0", Sectors: 32768, Below: []string{"8:2"}, DMName: []byte("root"), DMUUID: []byte("CRYPT-LUKS2-" + strings.ReplaceAll(h.UUID, "-", "") + "-root")},
		},
	}
	if m.facts[evidence.FactVolumes], err = v.Encode(); err != nil {
		m.w.t.Fatal(err)
	}
}

// TestVolumesBoundHere: a disk that unmodified clevis binds to this AIAS is recognised; the rule follows what is bound, rotated, destroyed and escrowed, with the
// worker's next Evidence.
func TestVolumesBoundHere(t *testing.T) {
	w := newWorld(t, func(w *world) {
		load := LoadFrom(filepath.Join(boots, "references"))
		policy := strings.Replace(string(bootFile(t, "policy.yaml")), "\nspec:\n", "\nspec:\n  bootLoader: {dataAtRest: {volumes: required, keys: [aias], passphrases: escrowed}}\n", 1)
		w.loader = func([]byte) (*Snapshot, error) {
			s, err := load([]byte(policy))
			if err == nil {
				s.Roots, s.Links = w.roots, append(s.Links, w.maker.Issuer)
			}
			return s, err
		}
	})
	m := w.enrolled("worker-1")
	bank := m.booted("good")
	disk := filepath.Join(t.TempDir(), "disk")
	if _, err := clevis(t, "correct horse", `truncate -s 32M "$1" && cryptsetup luksFormat --type luks2 --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file - "$1"`, disk); err != nil {
		t.Fatal(err)
	}
	check := func(when, want, bindings string) {
		t.Helper()
		m.mounts(disk)
		a, err := m.send(m.quoted(m.next, bank))
		if err != nil || a.Trusted != (want == "") || !strings.Contains(a.Levels[2].Reason, want) {
			t.Fatalf("%s: got %+v and %v, want level 3 %q", when, a, err, want)
		}
		all, err := w.admin.Volumes(t.Context())
		if err != nil || len(all.Nodes) != 1 || len(all.Nodes[0].Volumes) != 1 {
			t.Fatalf("%s: Volumes(): got %+v and %v, want one volume of one node", when, all, err)
		}
		v := all.Nodes[0].Volumes[0]
		if v.Encrypted != "yes" || len(v.Containers) != 1 || strings.Join(v.Containers[0].Bindings, ", ") != bindings {
			t.Errorf("%s: got %+v, want encrypted and %q", when, v, bindings)
		}
	}
	check("made", "only by a passphrase", "passphrase")
	config := w.bindDisk(w.disks(), "worker-1", protocol.DiskPolicy{Mode: "node"})
	if _, err := clevis(t, "correct horse", `clevis luks bind -f -k - -d "$1" tang "$2"`, disk, config); err != nil {
		t.Fatal(err)
	}
	check("bound", "has 1 passphrases, and AIAS keeps none", "passphrase, AIAS")
	uuid, err := clevis(t, "", `cryptsetup luksUUID "$1"`, disk)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.admin.Deposit(t.Context(), "worker-1", strings.TrimSpace(uuid), []byte("correct horse")); err != nil {
		t.Fatal(err)
	}
	check("escrowed", "", "passphrase (one is escrowed), AIAS")
	if _, err := w.admin.ActOnDisk(t.Context(), "worker-1", protocol.DiskRotate, protocol.DiskAct{}); err != nil {
		t.Fatal(err)
	}
	check("rotated", "", "passphrase (one is escrowed), AIAS (rotated key: bind again)")
	if d := w.disk("worker-1"); d.Volumes == nil || len(d.Volumes.Volumes) != 1 {
		t.Errorf("Disks(): got %+v, want the volume with it", d)
	}
	if err := w.admin.DestroyDisk(t.Context(), "worker-1"); err != nil {
		t.Fatal(err)
	}
	m.mounts(disk)
	a, err := m.send(m.quoted(m.next, bank))
	if err != nil || a.Trusted || a.Levels[2].Status != string(appraisal.Fail) || !strings.Contains(a.Levels[2].Reason, "opens by other Tang") {
		t.Errorf("destroyed: got %+v and %v, want level 3 to fail", a, err)
	}
}
