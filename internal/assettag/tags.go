package assettag

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Limits on tags. Names and values become part of node labels (api/v1alpha1).
const (
	MaxTags  = 16
	MaxName  = 40 // bytes
	MaxValue = 63 // bytes
)

// ErrTags says that tags are not acceptable.
var ErrTags = errors.New("tags are not acceptable")

// Validate checks names and values as the AssetTag object does. Errors wrap ErrTags and name what is wrong.
func Validate(tags map[string]string) error {
	if len(tags) == 0 || len(tags) > MaxTags {
		return fmt.Errorf("%w: %d tags, want 1 to %d", ErrTags, len(tags), MaxTags)
	}
	for name, value := range tags {
		if len(name) > MaxName || !within(name, "-", false) {
			return fmt.Errorf("%w: name %.60q: want at most %d lower case letters, digits and '-', a letter or digit first and last", ErrTags, name, MaxName)
		}
		if len(value) > MaxValue || !within(value, "-_.", true) {
			return fmt.Errorf("%w: value %.80q of %s: want at most %d letters, digits, '-', '_' and '.', a letter or digit first and last", ErrTags, value, name, MaxValue)
		}
	}
	return nil
}

// within reports whether s is made of letters (upper case ones, too, or not) and digits, with some other characters between them.
func within(s, between string, upper bool) bool {
	alphanumeric := func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || upper && c >= 'A' && c <= 'Z'
	}
	for i := range len(s) {
		if !alphanumeric(s[i]) && (i == 0 || i == len(s)-1 || strings.IndexByte(between, s[i]) < 0) {
			return false
		}
	}
	return s != ""
}

// digest is the SHA-256 of the tags, sorted by name, each name and value after its length: no two sets have the same bytes.
func digest(tags map[string]string) [sha256.Size]byte {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		for _, s := range []string{name, tags[name]} {
			h.Write(binary.BigEndian.AppendUint16(nil, uint16(len(s))))
			h.Write([]byte(s))
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// Text writes tags sorted by name: "country=de, site=muc".
func Text(tags map[string]string) string {
	parts := make([]string, 0, len(tags))
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		parts = append(parts, name+"="+tags[name])
	}
	return strings.Join(parts, ", ")
}

// Common returns the tags that a and b both have with the same value; nil when there are none.
func Common(a, b map[string]string) map[string]string {
	var out map[string]string
	for name, value := range a {
		if other, ok := b[name]; ok && other == value {
			if out == nil {
				out = map[string]string{}
			}
			out[name] = value
		}
	}
	return out
}
