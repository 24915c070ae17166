package imagekey

import (
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// KeySize is the size of an image's key in bytes: AES-256.
const KeySize = 32

// ErrID says that a text is no ID of a key.
var ErrID = errors.New("not the ID of an image key")

const (
	ownPrefix  = "ik-"
	cocoScheme = "kbs://"
)

var (
	ownID = regexp.MustCompile(`^ik-[a-z2-7]{26}$`)
	// resource is repository/type/tag, as a key broker of CoCo names keys.
	resource = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}/[A-Za-z0-9][A-Za-z0-9._-]{0,62}/[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
)

// NewID returns a fresh ID for a key that AIAS makes.
func NewID() string { return ownPrefix + strings.ToLower(rand.Text()) }

// ParseID returns the ID by which AIAS knows a key: one that NewID made, or that of a key of CoCo as "kbs:///repository/type/tag". Which
// server a CoCo ID names is left out: keys come from this AIAS or from nowhere.
func ParseID(s string) (string, error) {
	if ownID.MatchString(s) {
		return s, nil
	}
	if rest, ok := strings.CutPrefix(s, cocoScheme); ok && len(s) <= 512 {
		if _, path, ok := strings.Cut(rest, "/"); ok && resource.MatchString(path) {
			return cocoScheme + "/" + path, nil
		}
	}
	return "", fmt.Errorf("%w: %.60q: want one that AIAS gave, or kbs:///REPOSITORY/TYPE/TAG", ErrID, s)
}

// Imported tells whether an ID is one of CoCo: such a key was not made by AIAS.
func Imported(id string) bool { return strings.HasPrefix(id, cocoScheme) }
