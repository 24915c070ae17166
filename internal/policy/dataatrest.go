package policy

import (
	"slices"
	"strings"
)

// DataAtRest says which volumes of a worker must be encrypted, and what may open them.
type DataAtRest struct {
	Volumes string `json:"volumes,omitempty" words:"any warn required"`
	// Mounts are what it is asked of: patterns of mount points, paths (of which the volume that holds them is meant), and "swap". Except takes out of that.
	Mounts []string `json:"mounts,omitempty"`
	Except []string `json:"except,omitempty"`
	// Keys are the ways to a key that are accepted; each volume must have one, and no other. Empty: any.
	Keys        []string `json:"keys,omitempty"`
	Passphrases string   `json:"passphrases,omitempty" words:"any escrowed none"` // of key slots that open without any of Keys
}

// SwapSpace is the word for swap space among mount points.
const SwapSpace = "swap"

// Ways to a key.
const (
	KeyAIAS   = "aias" // a Tang key of this AIAS
	KeyTang   = "tang" // of another server
	KeyTPM2   = "tpm2"
	KeyFIDO2  = "fido2"
	KeyPKCS11 = "pkcs11"
)

var keyWays = []string{KeyAIAS, KeyTang, KeyTPM2, KeyFIDO2, KeyPKCS11}

var (
	defaultMounts = []string{"*", SwapSpace}
	// Firmware and boot loaders read these; what lies there is signed or measured, and judged by the other rules.
	defaultExcept = []string{"/boot", "/boot/*", "/efi", "/efi/*"}
)

// maxPatterns bounds the lists: each volume is held against each pattern.
const maxPatterns = 64

func (d *DataAtRest) fill() {
	if d.Mounts == nil {
		d.Mounts = slices.Clone(defaultMounts)
	}
	if d.Except == nil {
		d.Except = slices.Clone(defaultExcept)
	}
}

func (d *DataAtRest) validate(e *errs) {
	for _, list := range []struct {
		name     string
		patterns []string
	}{{"mounts", d.Mounts}, {"except", d.Except}} {
		if len(list.patterns) > maxPatterns {
			e.add("bootLoader.dataAtRest.%s: %d patterns, at most %d", list.name, len(list.patterns), maxPatterns)
		}
		for _, p := range list.patterns {
			if p != SwapSpace && !strings.HasPrefix(p, "/") && !strings.HasPrefix(p, "*") {
				e.add("bootLoader.dataAtRest.%s: %q is neither a path, a pattern of paths, nor %q", list.name, p, SwapSpace)
			}
		}
	}
	for _, k := range d.Keys {
		if !slices.Contains(keyWays, k) {
			e.add("bootLoader.dataAtRest.keys: %q: want some of %s", k, strings.Join(keyWays, ", "))
		}
	}
	if d.Passphrases != "any" && len(d.Keys) == 0 {
		e.add("bootLoader.dataAtRest.passphrases is %q, but keys names nothing that opens a volume without one", d.Passphrases)
	}
}
