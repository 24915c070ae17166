package uefi

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// MaxDBXNames bounds the published list with names, in bytes.
const MaxDBXNames = 16 << 20

// ErrDBXNames marks JSON that is not the published revocation list.
var ErrDBXNames = errors.New("not a published revocation list")

// RevokedName is an entry of the published revocation list: what a hash stands for.
type RevokedName struct {
	Arch      string // "x64", "aarch64" ...
	Hash      []byte // SHA-256 Authenticode digest
	File      string // "shim.efi"
	Company   string
	Note      string // the publisher's description
	Added     string // date, "2018-04-01"
	Authority string // subject of the CA that signed it
}

// Name returns what people call the entry: "shim.efi (Debian), CVE-...".
func (r RevokedName) Name() string {
	name := r.File
	if name == "" {
		name = "unnamed image"
	}
	if r.Company != "" && r.Company != "Unknown" {
		name += " (" + r.Company + ")"
	}
	if r.Note != "" {
		name += ", " + r.Note
	}
	return name
}

// ParseDBXNames reads the list that microsoft/secureboot_objects publishes beside DBXUpdate (dbx_info_msft_*.json). It names hashes
// only: certificates are listed there by thumbprint, not by content, and come with DBXUpdate itself.
func ParseDBXNames(b []byte) ([]RevokedName, error) {
	if len(b) > MaxDBXNames {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", ErrDBXNames, len(b), MaxDBXNames)
	}
	var doc struct {
		Images map[string][]struct {
			AuthenticodeHash, HashType, Filename, Description, CompanyName, DateOfAddition, SigningAuthority string
		}
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDBXNames, err)
	}
	var out []RevokedName
	for _, arch := range slices.Sorted(maps.Keys(doc.Images)) {
		for _, im := range doc.Images[arch] {
			if !strings.EqualFold(im.HashType, "SHA256") {
				return nil, fmt.Errorf("%w: hash type %q is not known", ErrDBXNames, im.HashType)
			}
			hash, err := hex.DecodeString(im.AuthenticodeHash)
			if err != nil || len(hash) != 32 {
				return nil, fmt.Errorf("%w: %q is not a SHA-256", ErrDBXNames, im.AuthenticodeHash)
			}
			out = append(out, RevokedName{Arch: arch, Hash: hash, File: strings.TrimSpace(im.Filename), Company: strings.TrimSpace(im.CompanyName),
				Note: strings.TrimSpace(im.Description), Added: im.DateOfAddition, Authority: im.SigningAuthority})
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: it has no images", ErrDBXNames)
	}
	return out, nil
}
