package uefi_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/uefi"
)

func level(tb testing.TB, csv string) uefi.Level {
	tb.Helper()
	l, err := uefi.ParseSBATLevel([]byte(csv))
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

func TestParseSBATLevel(t *testing.T) {
	got, err := uefi.ParseSBATLevel(variable(t, "SbatLevelRT"))
	if err != nil {
		t.Fatal(err)
	}
	want := uefi.Level{Date: "2025021800", Components: []uefi.Component{{Name: "sbat", Generation: 1}, {Name: "shim", Generation: 4}, {Name: "grub", Generation: 5}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ParseSBATLevel (-want +got):\n%s", diff)
	}
	if s := got.String(); s != "sbat,1,2025021800\nshim,4\ngrub,5\n" {
		t.Errorf("String: got %q", s)
	}
	for _, bad := range []string{"", "shim,4", "sbat,1", "sbat,1,2025", "sbat,1,20250218xx", "sbat,1,2025021800\nshim", "sbat,1,2025021800\nshim,x", "sbat,1,2025021800\nshim,-1",
		"sbat,1,2025021800\nshim,99999999999", "sbat,1,2025021800\n\ngrub,3", "sbat,1,2025021800\nsh\x01m,3", "sbat,1,2025021800\nsh im,3",
		"sbat,1,2025021800\n" + strings.Repeat("a,1\n", uefi.MaxSBATComponents), strings.Repeat("x", uefi.MaxSBAT+1)} {
		if _, err := uefi.ParseSBATLevel([]byte(bad)); !errors.Is(err, uefi.ErrSBAT) {
			t.Errorf("ParseSBATLevel(%.40q): got %v, want ErrSBAT", bad, err)
		}
	}
}

func TestRevokes(t *testing.T) {
	components, err := uefi.ParseSBAT([]byte(sbat + "grub,3,Free Software Foundation,grub,2.06,https://www.gnu.org/software/grub/\n\x00\x00"))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		level string
		want  []string
	}{
		{"sbat,1,2021030218", nil},
		{"sbat,1,2024010900\nshim,4\ngrub,3\ngrub.debian,4", nil},
		{"sbat,1,2025021800\nshim,4\ngrub,5", []string{"grub 3, revoked below 5"}},
		{"sbat,2,2030010100\nshim,5\ngrub,5", []string{"sbat 1, revoked below 2", "shim 4, revoked below 5", "grub 3, revoked below 5"}},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, level(t, tt.level).Revokes(components)); diff != "" {
			t.Errorf("Revokes at %q (-want +got):\n%s", tt.level, diff)
		}
	}
}

func TestAtLeast(t *testing.T) {
	tests := []struct {
		a, b string
		want bool
	}{
		{"sbat,1,2025021800\nshim,4\ngrub,5", "sbat,1,2025021800\nshim,4\ngrub,5", true},
		{"sbat,1,2025021800\nshim,4\ngrub,5", "sbat,1,2021030218", true},
		{"sbat,1,2021030218", "sbat,1,2025021800\nshim,4\ngrub,5", false},
		{"sbat,1,2025021800\nshim,4\ngrub,5", "sbat,1,2024010900\nshim,4\ngrub,3\ngrub.debian,4", true}, // grub rose
		{"sbat,1,2024020100\nshim,4\ngrub,3", "sbat,1,2024010900\nshim,4\ngrub,3\ngrub.debian,4", false},
		{"sbat,1,2030010100\nshim,3\ngrub,5", "sbat,1,2025021800\nshim,4\ngrub,5", false}, // newer date, lower generation
		{"sbat,1,2024010900\nshim,9\ngrub,9", "sbat,1,2025021800\nshim,4\ngrub,5", false}, // older date
	}
	for _, tt := range tests {
		if got := level(t, tt.a).AtLeast(level(t, tt.b)); got != tt.want {
			t.Errorf("AtLeast(%q, %q): got %v, want %v", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestFindSBATLevels(t *testing.T) {
	text := "Levels of a vendor.\n\nFirst:\n\nsbat,1,2022052400\ngrub,2\n\nWith shim:\nsbat,1,2022052400\nshim,2\ngrub,2\n\nsbat,1,2021030218\n\nsbat, they say, is good\nsbat,1,2025051000\nshim,4\ngrub,5\ngrub.proxmox,2\nThe end."
	got, err := uefi.FindSBATLevels([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var dates []string
	for _, l := range got {
		dates = append(dates, l.Date)
	}
	if diff := cmp.Diff([]string{"2021030218", "2022052400", "2022052400", "2025051000"}, dates); diff != "" {
		t.Errorf("FindSBATLevels dates (-want +got):\n%s", diff)
	}
	if last := got[3]; last.Generation("grub.proxmox") != 2 || got[2].Generation("shim") != 2 || got[1].Generation("shim") != 0 {
		t.Errorf("FindSBATLevels: got %+v", got)
	}
	if _, err := uefi.FindSBATLevels([]byte("no level here")); !errors.Is(err, uefi.ErrSBAT) {
		t.Errorf("FindSBATLevels(prose): got %v, want ErrSBAT", err)
	}
}

func FuzzSBAT(f *testing.F) {
	f.Add(variable(f, "SbatLevelRT"))
	f.Add([]byte(sbat))
	f.Add([]byte("text\nsbat,1,2025051000\nshim,4\n\nsbat,1,2021030218\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		components, _ := uefi.ParseSBAT(b)
		_, _ = uefi.FindSBATLevels(b)
		l, err := uefi.ParseSBATLevel(b)
		if err != nil {
			return
		}
		l.Revokes(components)
		again, err := uefi.ParseSBATLevel([]byte(l.String()))
		if err != nil || !cmp.Equal(l, again) {
			t.Errorf("ParseSBATLevel(%q) does not survive String: %v", b, err)
		}
		if !l.AtLeast(l) {
			t.Errorf("AtLeast(%q, itself): got false", b)
		}
	})
}
