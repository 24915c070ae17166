package luks

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// metadata is the JSON of LUKS2 (specification, chapter 3), as far as it is read. A field that is not here does not survive Strip: salts, digests, and whatever a
// token of an unknown type holds.
type metadata struct {
	Keyslots map[string]keyslot `json:"keyslots"` // 3.2
	Tokens   map[string]token   `json:"tokens"`   // 3.5
	Segments map[string]segment `json:"segments"` // 3.3
	Config   config             `json:"config"`   // 3.6
}

type keyslot struct {
	Type    string `json:"type"` // luks2, or reencrypt
	KeySize int    `json:"key_size,omitempty"`
}

type segment struct {
	Type       string     `json:"type"` // crypt, linear, or hw-opal and hw-opal-crypt of newer ones
	Encryption string     `json:"encryption,omitempty"`
	Integrity  *integrity `json:"integrity,omitempty"`
}

type integrity struct {
	Type string `json:"type"`
}

type config struct {
	Requirements *requirements `json:"requirements,omitempty"`
}

type requirements struct {
	Mandatory []string `json:"mandatory,omitempty"` // "online-reencrypt"
}

// token is any token (3.5). The fields are those of clevis and of systemd; other types have but their name and slots.
type token struct {
	Type     string   `json:"type"`
	Keyslots []string `json:"keyslots"`
	JWE      *jwe     `json:"jwe,omitempty"`
	PCRs     []int    `json:"tpm2-pcrs,omitempty"`
	Bank     string   `json:"tpm2-pcr-bank,omitempty"`
	PIN      bool     `json:"tpm2-pin,omitempty"`
	Signed   []int    `json:"tpm2_pubkey_pcrs,omitempty"`
	UserPIN  bool     `json:"fido2-clientPin-required,omitempty"`
}

// jwe is what clevis encrypted (RFC 7516, 7.2.2); only the protected header is read, which says how.
type jwe struct {
	Protected string `json:"protected"`
}

func parseMetadata(b []byte) (*metadata, error) {
	var m metadata
	if err := json.Unmarshal(b, &m); err != nil {
		// The error of the library quotes what it read.
		return nil, fmt.Errorf("the JSON of the LUKS2 header cannot be read")
	}
	if len(m.Keyslots) > maxSlots || len(m.Tokens) > maxSlots || len(m.Segments) > 2*maxSlots {
		return nil, fmt.Errorf("the LUKS2 header has %d key slots, %d tokens and %d segments, more than the format allows", len(m.Keyslots), len(m.Tokens), len(m.Segments))
	}
	return &m, nil
}

// strip is the JSON again, with the headers of clevis stripped as well.
func (m *metadata) strip() ([]byte, error) {
	for name, t := range m.Tokens {
		if len(t.Keyslots) > maxSlots || len(t.PCRs) > maxSlots || len(t.Signed) > maxSlots {
			return nil, fmt.Errorf("token %.20q of the LUKS2 header names more than the format allows", name)
		}
		if t.JWE == nil {
			continue
		}
		protected, err := stripProtected(t.JWE.Protected, 0)
		if err != nil {
			protected = "" // Parse says that it cannot be read
		}
		t.JWE = &jwe{protected}
		m.Tokens[name] = t
	}
	return json.Marshal(m)
}

// numbered are the keys of an object, whose names are numbers (3.1), in order.
func numbered[T any](objects map[string]T) ([]int, error) {
	out := make([]int, 0, len(objects))
	for name := range objects {
		n, err := strconv.ParseUint(name, 10, 16)
		if err != nil || strconv.FormatUint(n, 10) != name {
			return nil, fmt.Errorf("the LUKS2 header has an object %.20q, want a number", name)
		}
		out = append(out, int(n))
	}
	slices.Sort(out)
	return out, nil
}

// fill reads slots, tokens and segments into h.
func (m *metadata) fill(h *Header) error {
	if err := m.segments(h); err != nil {
		return err
	}
	slots, err := numbered(m.Keyslots)
	if err != nil {
		return err
	}
	tokens, err := numbered(m.Tokens)
	if err != nil {
		return err
	}
	for _, n := range slots {
		if m.Keyslots[strconv.Itoa(n)].Type != "luks2" {
			continue // it holds no key: reencrypt
		}
		s := Slot{Number: n}
		for _, i := range tokens {
			if t := m.Tokens[strconv.Itoa(i)]; slices.Contains(t.Keyslots, strconv.Itoa(n)) {
				s.Ways = append(s.Ways, t.way())
			}
		}
		h.Slots = append(h.Slots, s)
	}
	return nil
}

// segments says what of the volume is encrypted, and how.
func (m *metadata) segments(h *Header) error {
	names, err := numbered(m.Segments)
	if err != nil {
		return err
	}
	for _, n := range names {
		s := m.Segments[strconv.Itoa(n)]
		switch {
		case s.Type == "linear":
			h.Plain = "a part of the volume is not encrypted (it is being encrypted or decrypted, or that was broken off)"
		case s.Type == "hw-opal":
			h.Cipher = "OPAL (the disk encrypts)"
		case null(s.Encryption):
			h.Plain = "its cipher is " + shown(s.Encryption) + ", which does not encrypt"
		case s.Encryption == "":
			h.Plain = "a segment of type " + shown(s.Type) + " names no cipher"
		case h.Cipher == "":
			h.Cipher = shown(s.Encryption)
		}
		if s.Integrity != nil {
			h.Integrity = shown(s.Integrity.Type)
		}
	}
	if len(names) == 0 {
		h.Plain = "the header names no segment"
	}
	return nil
}

// null reports whether a cipher is the one that leaves everything as it is.
func null(cipher string) bool {
	return strings.Contains(cipher, "cipher_null")
}
