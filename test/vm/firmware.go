package vm

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
)

// Firmware names the state of a machine's firmware variables when it leaves the workshop.
type Firmware string

// The states that a machine can be built with.
const (
	Microsoft          Firmware = ""                     // Secure Boot on with Microsoft's keys: an ordinary server
	SecureBootDisabled Firmware = "secure-boot-disabled" // the same keys, Secure Boot switched off in the setup menu
	SetupMode          Firmware = "setup-mode"           // no keys at all
	MOKEnrolled        Firmware = "mok-enrolled"         // shim also accepts what Keys.MOK signed
	MOKInsecure        Firmware = "mok-insecure"         // shim was told to verify nothing (MokSBState)
	DBXOther           Firmware = "dbx-other"            // a revocation of something this machine does not boot was added
	OwnKeys            Firmware = "own-keys"             // PK, KEK and db replaced by Keys.Owner: boots only a UKI signed by it
)

// Files of Debian's ovmf package.
const (
	ovmfCode  = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
	ovmfMS    = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"
	ovmfEmpty = "/usr/share/OVMF/OVMF_VARS_4M.fd"
)

// firmware returns the variable store file of state f, built when it is not in the cache.
func (l *Lab) firmware(ctx context.Context, f Firmware) (string, error) {
	base := ovmfMS
	if f == SetupMode {
		base = ovmfEmpty
	}
	image, err := os.ReadFile(base)
	if err != nil {
		return "", err
	}
	key := digest([]byte("firmware 1"), []byte(f), image, l.Keys.MOK.Certificate.Raw, l.Keys.Owner.Certificate.Raw)
	dir, err := l.cached(ctx, "firmware", key, func(_ context.Context, dir string) error {
		out, err := l.editFirmware(f, image)
		if err != nil {
			return fmt.Errorf("firmware state %q from %s: %w", f, base, err)
		}
		return os.WriteFile(filepath.Join(dir, "vars.fd"), out, 0o644)
	})
	return filepath.Join(dir, "vars.fd"), err
}

// editFirmware changes the store image so that it is in state f.
func (l *Lab) editFirmware(f Firmware, image []byte) ([]byte, error) {
	s, err := parseVarStore(image)
	if err != nil {
		return nil, err
	}
	owner := signatureList(guidCertX509, l.Keys.Owner.Certificate.Raw)
	switch f {
	case Microsoft, SetupMode:
	case SecureBootDisabled:
		s.set("SecureBootEnable", guidSecureBootEnable, attrBootService, []byte{0})
	case MOKEnrolled:
		s.set("MokList", guidShim, attrBootService, signatureList(guidCertX509, l.Keys.MOK.Certificate.Raw))
	case MOKInsecure:
		s.set("MokSBState", guidShim, attrBootService, []byte{1})
	case DBXOther:
		sum := sha256.Sum256([]byte("an image that nobody boots"))
		s.extend("dbx", guidImageSecurity, attrKeys, signatureList(guidCertSHA256, sum[:]))
	case OwnKeys:
		s.set("PK", guidGlobal, attrKeys, owner)
		s.set("KEK", guidGlobal, attrKeys, owner)
		s.set("db", guidImageSecurity, attrKeys, owner)
	default:
		return nil, fmt.Errorf("unknown firmware state %q", f)
	}
	return s.bytes()
}

// signatureList returns an EFI_SIGNATURE_LIST with one signature of the given type (UEFI specification, 32.4.1).
func signatureList(kind guid, data []byte) []byte {
	b := append([]byte{}, kind[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(28+16+len(data))) // whole list
	b = binary.LittleEndian.AppendUint32(b, 0)                       // no header
	b = binary.LittleEndian.AppendUint32(b, uint32(16+len(data)))    // each signature, with its owner
	b = append(b, guidOwner[:]...)
	return append(b, data...)
}
