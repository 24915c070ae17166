package control

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestJobRoundTrip(t *testing.T) {
	want := &Job{Control: "10.0.2.2:4711", Token: "abc", Files: map[string]File{"/etc/hosts": {Mode: 0o644, Data: []byte("10.0.2.2 aias\n")}}}
	var disk bytes.Buffer
	if err := WriteJob(&disk, want); err != nil {
		t.Fatal(err)
	}
	disk.Write(make([]byte, 4096)) // the rest of the disk
	got, err := ReadJob(&disk)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ReadJob(WriteJob(j)) differs (-want +got):\n%s", diff)
	}
}

func TestReadJobRefuses(t *testing.T) {
	for _, c := range []struct{ name, disk, want string }{
		{"empty disk", "", "length of job"},
		{"too long", string(binary.LittleEndian.AppendUint64(nil, MaxJob+1)), "at most"},
		{"cut short", string(binary.LittleEndian.AppendUint64(nil, 5)) + "{", "read job"},
		{"no JSON", string(binary.LittleEndian.AppendUint64(nil, 1)) + "x", "decode job"},
	} {
		_, err := ReadJob(strings.NewReader(c.disk))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("ReadJob(%s): got error %v, want one with %q", c.name, err, c.want)
		}
	}
}
