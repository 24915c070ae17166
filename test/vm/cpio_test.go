package vm

import (
	"bytes"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// cpioEntry is what the tests look at in an archive.
type cpioEntry struct {
	Name  string
	Mode  uint64
	Major uint64
	Data  string
}

// readCPIO reads an archive by the kernel's rules: 13 hexadecimal fields after the magic, name and data padded to 4.
func readCPIO(t *testing.T, b []byte) []cpioEntry {
	t.Helper()
	pad := func(n int) int { return (n + 3) &^ 3 }
	var out []cpioEntry
	for at := 0; ; {
		if string(b[at:at+6]) != "070701" {
			t.Fatalf("no magic at %d", at)
		}
		field := func(i int) uint64 {
			n, err := strconv.ParseUint(string(b[at+6+8*i:at+14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		size, nameSize := int(field(6)), int(field(11))
		name := string(b[at+110 : at+110+nameSize-1])
		data := at + pad(110+nameSize)
		if name == "TRAILER!!!" {
			return out
		}
		out = append(out, cpioEntry{Name: name, Mode: field(1), Major: field(9), Data: string(b[data : data+size])})
		at = pad(data + size)
	}
}

func TestCPIOArchive(t *testing.T) {
	files := map[string]File{
		"/init":          {Mode: 0o755, Data: []byte("#!")},
		"/etc/ima/rules": {Mode: 0o644, Data: []byte("measure\n")},
	}
	b := cpioArchive(files, "/proc")
	want := []cpioEntry{
		{Name: "dev", Mode: 0o040755},
		{Name: "dev/console", Mode: 0o020600, Major: 5},
		{Name: "etc", Mode: 0o040755},
		{Name: "etc/ima", Mode: 0o040755},
		{Name: "etc/ima/rules", Mode: 0o100644, Data: "measure\n"},
		{Name: "init", Mode: 0o100755, Data: "#!"},
		{Name: "proc", Mode: 0o040755},
	}
	if diff := cmp.Diff(want, readCPIO(t, b)); diff != "" {
		t.Errorf("cpioArchive differs (-want +got):\n%s", diff)
	}
	if len(b)%512 != 0 {
		t.Errorf("cpioArchive: got %d bytes, want a multiple of 512", len(b))
	}
	if again := cpioArchive(files, "/proc"); !bytes.Equal(b, again) {
		t.Error("cpioArchive: got other bytes for the same files")
	}
}
