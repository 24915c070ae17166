// Package luks reads the headers of encrypted volumes: which key slots are in use, and what opens them. It reads LUKS2 as its on-disk format
// specification (1.0) has it (chapter 2: binary header; chapter 3: JSON), LUKS1 as its on-disk format specification (1.2.3) has it (2.3: the phdr), and what clevis keeps
// beside either: a token of LUKS2, or luksmeta's area in the gap behind the key material of LUKS1.
//
// A header travels to AIAS, which holds the other half of many keys in it. So Strip leaves out all that helps to open a volume: salts, digests of the volume
// key, the ciphertexts of clevis and of TPMs, and the ephemeral points by which AIAS could recover what clevis encrypted. What is left is a header in the same
// format, with a checksum that fits, and Parse reads both. The key material itself lies behind the header and is never read.
//
// Everything is bounded, as a header is whatever somebody wrote on a disk: no panic, no more than MaxHeader bytes, no more than 32 key slots and tokens.
package luks

import "errors"

// ErrNone says that there is no LUKS header.
var ErrNone = errors.New("no LUKS header")

// Limits.
const (
	MaxHeader   = 4 << 20  // bytes of a LUKS2 header: the largest that the specification allows (2.2)
	MaxStripped = 64 << 10 // bytes of a stripped header
	maxSlots    = 32       // key slots and tokens of LUKS2 (LUKS2_KEYSLOTS_MAX, LUKS2_TOKENS_MAX)
	maxDepth    = 4        // secret sharing within secret sharing
	maxWays     = 16       // pins of one secret sharing
	maxText     = 256      // bytes of any text that is shown
)

// Header is what a header says.
type Header struct {
	Version   int // 1 or 2
	UUID      string
	Label     string
	Cipher    string // "aes-xts-plain64"; of LUKS2 the one of the first encrypted segment
	Integrity string // dm-integrity below: "hmac(sha256)"; "" when there is none
	// Plain says what of the volume is not encrypted: "" when all is.
	Plain string
	Slots []Slot // in use, by number
}

// Slot is a key slot in use.
type Slot struct {
	Number int
	// Ways are the tokens that open the slot without a person; none: a passphrase or a key file does.
	Ways []Way
}

// Pins by which a slot opens, beside what clevis calls its own.
const (
	PinTang     = "tang"
	PinTPM2     = "tpm2"
	PinSharing  = "sss"
	PinFIDO2    = "fido2"
	PinPKCS11   = "pkcs11"
	PinRecovery = "recovery" // a passphrase that systemd made
	PinKeyring  = "keyring"  // a passphrase that something else puts into the kernel's keyring
	PinUnknown  = "unknown"  // a token that this package does not know, or that cannot be read
)

// Way is what opens a key slot.
type Way struct {
	Pin  string
	By   string // "clevis", or the type of the token
	Note string // of PinUnknown: why
	// URL and Key are of a Tang server: where it is, and the RFC 7638 thumbprint (SHA-256 wherever it can be told) of the exchange key.
	URL string
	Key string
	// PCRs and Bank are of a TPM: "7", "sha256". Without PCRs whatever boots opens it.
	PCRs string
	Bank string
	PIN  bool // of a token: somebody has to type a PIN as well
	// Threshold of Ways are needed, of secret sharing.
	Threshold int
	Ways      []Way
}

// Needs reports whether the way cannot be gone without one of those that accept accepts. Secret sharing can when its threshold is met without them.
func (w *Way) Needs(accept func(*Way) bool) bool {
	if w.Pin != PinSharing {
		return accept(w)
	}
	without := 0
	for i := range w.Ways {
		if !w.Ways[i].Needs(accept) {
			without++
		}
	}
	return without < w.Threshold
}

// Leaves calls fn for the way, or for each of those that it shares a secret between.
func (w *Way) Leaves(fn func(*Way)) {
	if w.Pin != PinSharing {
		fn(w)
		return
	}
	for i := range w.Ways {
		w.Ways[i].Leaves(fn)
	}
}
