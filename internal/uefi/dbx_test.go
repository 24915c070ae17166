package uefi_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/uefi"
	"touchstone.dev/touchstone/internal/uefi/uefitest"
)

func TestParseDBX(t *testing.T) {
	lists := uefitest.List(uefitest.SHA256, bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32))
	signed := uefitest.SignedUpdate(lists)
	badTime := bytes.Clone(signed)
	badTime[2] = 13
	tests := []struct {
		name, form string
		in         []byte
		count      int
	}{
		{"signed", uefi.FormSigned, signed, 2},
		{"lists", uefi.FormLists, lists, 2},
		{"efivars", uefi.FormEFIVar, append([]byte{0x27, 0, 0, 0}, lists...), 2},
		{"captured", uefi.FormEFIVar, append([]byte{0x27, 0, 0, 0}, variable(t, "dbx")...), 1},
		{"empty", "", nil, 0},
		{"attributes only", "", []byte{0x27, 0, 0, 0}, 0},
		{"signed, empty", "", uefitest.SignedUpdate(nil), 0},
		{"signed, cut", "", signed[:len(signed)-1], 0},
		{"signed, month 13", "", badTime, 0},
		{"text", "", []byte("this is not a revocation list at all"), 0},
	}
	for _, tt := range tests {
		got, err := uefi.ParseDBX(tt.in)
		if tt.form == "" {
			if !errors.Is(err, uefi.ErrDBX) {
				t.Errorf("ParseDBX(%s): got %v, want ErrDBX", tt.name, err)
			}
			continue
		}
		if err != nil || got.Form != tt.form || len(got.Signatures) != tt.count {
			t.Errorf("ParseDBX(%s): got %+v, %v, want %s with %d", tt.name, got, err, tt.form, tt.count)
		}
	}
	if d, err := uefi.ParseDBX(signed); err != nil || d.Time.Format("2006-01-02T15:04:05Z07:00") != "2024-03-01T12:30:15Z" {
		t.Errorf("ParseDBX: got time %v, %v", d.Time, err)
	}
}

func TestParseDBXNames(t *testing.T) {
	const hash = "80B4D96931BF0D02FD91A61E19D14F1DA452E66DB2408CA8604D411F92659F0A"
	got, err := uefi.ParseDBXNames([]byte(`{"images":{"x64":[{"authenticodeHash":"` + hash + `","hashType":"SHA256","flatHash":"","filename":"shim.efi ","description":"CVE-2020-10713",
		"companyName":"Example","dateOfAddition":"2018-04-01","signingAuthority":"CN = CA"}],"arm":[{"authenticodeHash":"` + hash + `","hashType":"sha256"}]},"certificates":[],"svns":[]}`))
	if err != nil || len(got) != 2 {
		t.Fatalf("ParseDBXNames: got %d, %v", len(got), err)
	}
	if diff := cmp.Diff([]string{"unnamed image", "shim.efi (Example), CVE-2020-10713"}, []string{got[0].Name(), got[1].Name()}); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	for _, bad := range []string{"", "{}", `{"images":{"x64":[{"authenticodeHash":"00","hashType":"SHA256"}]}}`, `{"images":{"x64":[{"authenticodeHash":"` + hash + `","hashType":"MD5"}]}}`} {
		if _, err := uefi.ParseDBXNames([]byte(bad)); !errors.Is(err, uefi.ErrDBXNames) {
			t.Errorf("ParseDBXNames(%q): got %v, want ErrDBXNames", bad, err)
		}
	}
}

func FuzzDBXNames(f *testing.F) {
	f.Add([]byte(`{"images":{"x64":[{"authenticodeHash":"80B4D96931BF0D02FD91A61E19D14F1DA452E66DB2408CA8604D411F92659F0A","hashType":"SHA256","filename":"shim.efi"}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		names, err := uefi.ParseDBXNames(b)
		for _, n := range names {
			if len(n.Hash) != 32 || n.Name() == "" {
				t.Errorf("ParseDBXNames: entry %+v, error %v", n, err)
			}
		}
	})
}
