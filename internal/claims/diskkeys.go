package claims

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"touchstone.dev/touchstone/internal/luks"
)

// DiskKeys is what AIAS knows of the keys that open a node's volumes. Nil: nobody knows, as offline.
type DiskKeys struct {
	// Keys are the exchange keys that AIAS answers this node for, by their thumbprints (RFC 7638, SHA-256); true is one that was rotated.
	Keys map[string]bool
	// Escrowed are the volumes, by LUKS UUID in small letters, of which AIAS keeps a passphrase.
	Escrowed map[string]bool
}

// ID stands for all of it; "" is nil.
func (k *DiskKeys) ID() string {
	if k == nil {
		return ""
	}
	var b strings.Builder
	b.WriteString("known")
	for _, name := range slices.Sorted(maps.Keys(k.Keys)) {
		fmt.Fprintf(&b, " %q %t", name, k.Keys[name])
	}
	for _, name := range slices.Sorted(maps.Keys(k.Escrowed)) {
		fmt.Fprintf(&b, " %q", name)
	}
	return b.String()
}

// Ours reports whether a way is a Tang server whose key is at this AIAS.
func (k *DiskKeys) Ours(w *luks.Way) bool {
	if k == nil || w.Pin != luks.PinTang {
		return false
	}
	_, ok := k.Keys[w.Key]
	return ok
}

// Keeps reports whether AIAS keeps a passphrase of a volume.
func (k *DiskKeys) Keeps(uuid string) bool { return k != nil && k.Escrowed[strings.ToLower(uuid)] }

// Passphrase reports whether a slot opens by something that a person or a file knows.
func Passphrase(s *luks.Slot) bool {
	return len(s.Ways) == 0 || slices.ContainsFunc(s.Ways, func(w luks.Way) bool { return w.Pin == luks.PinRecovery || w.Pin == luks.PinKeyring })
}

// Text says in a few words what a way needs.
func (k *DiskKeys) Text(w *luks.Way) string {
	switch w.Pin {
	case luks.PinTang:
		switch {
		case k == nil:
			return "Tang " + w.URL
		case !k.Ours(w):
			return "other Tang " + w.URL
		case k.Keys[w.Key]:
			return "AIAS (rotated key: bind again)"
		}
		return "AIAS"
	case luks.PinTPM2:
		text := "TPM (PCR " + w.PCRs
		if w.PCRs == "" {
			text = "TPM (no PCR: whatever boots"
		}
		if w.PIN {
			text += ", PIN"
		}
		return text + ")"
	case luks.PinSharing:
		var parts []string
		for i := range w.Ways {
			parts = append(parts, k.Text(&w.Ways[i]))
		}
		return fmt.Sprintf("%d of [%s]", w.Threshold, strings.Join(parts, ", "))
	case luks.PinRecovery, luks.PinKeyring:
		return "passphrase (" + w.Pin + ")"
	case luks.PinUnknown:
		return "unknown (" + w.Note + ")"
	}
	return w.Pin
}

// Bindings says what opens a container, a slot each; that a passphrase is escrowed is said where AIAS keeps one of the volume.
func (k *DiskKeys) Bindings(c *Container) []string {
	if c.Header == nil {
		return nil
	}
	var out []string
	for i := range c.Header.Slots {
		s := &c.Header.Slots[i]
		if len(s.Ways) == 0 {
			text := "passphrase"
			if k.Keeps(c.UUID) {
				text += " (one is escrowed)"
			}
			out = append(out, text)
		}
		for j := range s.Ways {
			out = append(out, k.Text(&s.Ways[j]))
		}
	}
	return out
}
