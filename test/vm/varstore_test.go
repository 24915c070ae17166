package vm

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// emptyStore returns a variable store file without variables, laid out as OVMF's.
func emptyStore(size int) []byte {
	const header = 72
	b := bytes.Repeat([]byte{0xFF}, header+size+64) // what follows the store must stay as it is
	copy(b[40:], "_FVH")
	binary.LittleEndian.PutUint16(b[48:], header)
	binary.LittleEndian.PutUint32(b[header+16:], uint32(size))
	return b
}

func TestVarStoreRoundTrip(t *testing.T) {
	s, err := parseVarStore(emptyStore(1024))
	if err != nil {
		t.Fatal(err)
	}
	s.set("SecureBootEnable", guidSecureBootEnable, attrBootService, []byte{1})
	s.set("db", guidImageSecurity, attrKeys, []byte("one"))
	s.extend("db", guidImageSecurity, attrKeys, []byte("two"))
	s.extend("dbx", guidImageSecurity, attrKeys, []byte("x"))
	s.set("SecureBootEnable", guidSecureBootEnable, attrBootService, []byte{0})
	b, err := s.bytes()
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseVarStore(b)
	if err != nil {
		t.Fatal(err)
	}
	want := []*variable{
		{name: "SecureBootEnable", guid: guidSecureBootEnable, attrs: attrBootService, data: []byte{0}},
		{name: "db", guid: guidImageSecurity, attrs: attrKeys, time: timeStamp, data: []byte("onetwo")},
		{name: "dbx", guid: guidImageSecurity, attrs: attrKeys, time: timeStamp, data: []byte("x")},
	}
	if diff := cmp.Diff(want, got.vars, cmp.AllowUnexported(variable{})); diff != "" {
		t.Errorf("variables differ (-want +got):\n%s", diff)
	}
	if got.get("db", guidGlobal) != nil {
		t.Error("get: got a variable of another GUID")
	}
}

func TestVarStoreRefuses(t *testing.T) {
	cut := emptyStore(1024)
	binary.LittleEndian.PutUint32(cut[72+16:], 1<<20)
	head := emptyStore(1024)
	binary.LittleEndian.PutUint16(head[48:], 0xFFFF)
	long := emptyStore(1024)
	copy(long[72+storeHeader:], []byte{0xAA, 0x55, variableValid, 0}) // sizes are 0xFFFFFFFF
	for _, c := range []struct {
		name  string
		image []byte
		want  string
	}{
		{"empty file", nil, "no firmware volume"},
		{"store beyond the file", cut, "exceeds the file"},
		{"header beyond the file", head, "exceeds the file"},
		{"variable beyond the store", long, "do not fit"},
	} {
		_, err := parseVarStore(c.image)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("parseVarStore(%s): got error %v, want one with %q", c.name, err, c.want)
		}
	}
	s, err := parseVarStore(emptyStore(128))
	if err != nil {
		t.Fatal(err)
	}
	s.set("db", guidImageSecurity, attrKeys, make([]byte, 128))
	if _, err := s.bytes(); err == nil {
		t.Error("bytes: got no error for variables that do not fit")
	}
}

func TestSignatureList(t *testing.T) {
	b := signatureList(guidCertSHA256, make([]byte, 32))
	le := binary.LittleEndian
	got := []uint32{uint32(len(b)), le.Uint32(b[16:]), le.Uint32(b[20:]), le.Uint32(b[24:])}
	if diff := cmp.Diff([]uint32{76, 76, 0, 48}, got); diff != "" { // as efitools writes it
		t.Errorf("signatureList sizes differ (-want +got):\n%s", diff)
	}
}

func FuzzVarStore(f *testing.F) {
	s, err := parseVarStore(emptyStore(256))
	if err != nil {
		f.Fatal(err)
	}
	s.set("db", guidImageSecurity, attrKeys, []byte("one"))
	seed, err := s.bytes()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseVarStore(b)
		if err != nil {
			return
		}
		out, err := s.bytes()
		if err != nil {
			return // names that are no UTF-16 may grow
		}
		if _, err := parseVarStore(out); err != nil {
			t.Errorf("parseVarStore(bytes()): %v", err)
		}
	})
}
