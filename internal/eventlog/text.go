package eventlog

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// utf16Text decodes UTF-16LE without its final NUL. It is false for an odd length, a NUL inside or an unpaired surrogate.
func utf16Text(b []byte) (string, bool) {
	if len(b)%2 != 0 {
		return "", false
	}
	units := make([]uint16, 0, len(b)/2)
	for i := 0; i < len(b); i += 2 {
		units = append(units, binary.LittleEndian.Uint16(b[i:]))
	}
	if n := len(units); n > 0 && units[n-1] == 0 {
		units = units[:n-1]
	}
	var s strings.Builder
	for i := 0; i < len(units); i++ {
		r := rune(units[i])
		if utf16.IsSurrogate(r) {
			if i+1 == len(units) {
				return "", false
			}
			i++
			if r = utf16.DecodeRune(r, rune(units[i])); r == utf8.RuneError {
				return "", false
			}
		}
		if r == 0 {
			return "", false
		}
		s.WriteRune(r)
	}
	return s.String(), true
}

// looksUTF16 tells UTF-16 text from UTF-8: its first character is ASCII and its second byte zero, which no UTF-8 string has.
func looksUTF16(b []byte) bool {
	return len(b) >= 4 && len(b)%2 == 0 && b[0] != 0 && b[0] < utf8.RuneSelf && b[1] == 0
}

// plainText decodes UTF-8 without its final NUL. It is false for a NUL inside or bytes that aren't UTF-8.
func plainText(b []byte) (string, bool) {
	if n := len(b); n > 0 && b[n-1] == 0 {
		b = b[:n-1]
	}
	if !utf8.Valid(b) || strings.IndexByte(string(b), 0) >= 0 {
		return "", false
	}
	return string(b), true
}

// printable reports whether s can be shown as it is.
func printable(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// guid formats the 16 bytes of an EFI_GUID: the first three fields are little endian (UEFI 2.10, appendix A).
func guid(b []byte) string {
	g := [16]byte{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6]}
	copy(g[8:], b[8:16])
	s := hex.EncodeToString(g[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
