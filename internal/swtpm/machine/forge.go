package machine

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // the kernel's list carries SHA-1 template hashes
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"strings"
	"unicode/utf16"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/ima"
	"touchstone.dev/touchstone/internal/tpm"
)

// SecureBootOff is the boot with Secure Boot switched off in the firmware setup. Debian's GRUB leaves no log at all then, so no such log
// could be captured; the captured one is changed: the event of the SecureBoot variable says 0, its digest follows, and the kernel's
// boot_aggregate covers the PCRs that result.
func (b *Boot) SecureBootOff() (*Boot, error) {
	log, err := secureBootOff(b.Log)
	if err != nil {
		return nil, err
	}
	out, err := b.withLog(log)
	if err != nil {
		return nil, err
	}
	for name, data := range out.Files {
		if strings.HasPrefix(name, efivars+"/SecureBoot-") && len(data) == 5 {
			out.Files[name] = append(bytes.Clone(data[:4]), 0)
		}
	}
	out.Files["sys/kernel/security/lockdown"] = []byte("[none] integrity confidentiality\n")
	return out, nil
}

// withLog is the boot as it would have been with another firmware log.
func (b *Boot) withLog(log []byte) (*Boot, error) {
	pcrs, err := replay(log)
	if err != nil {
		return nil, err
	}
	list, err := withAggregate(b.List, pcrs)
	if err != nil {
		return nil, err
	}
	return &Boot{Log: log, List: list, Files: maps.Clone(b.Files)}, nil
}

// secureBootOff returns a copy of a firmware log in which the variable SecureBoot is 0, with the digests that follow from it.
// Lengths do not change, so the copy is patched in place.
func secureBootOff(log []byte) ([]byte, error) {
	out := bytes.Clone(log)
	l, err := eventlog.Parse(out) // its slices point into out
	if err != nil {
		return nil, fmt.Errorf("read the firmware log: %w", err)
	}
	name := utf16Bytes("SecureBoot")
	for i := range l.Events {
		e := &l.Events[i]
		// UEFI_VARIABLE_DATA: GUID, length of name and of data, name, data (PC Client PFP 1.06, 10.2.6).
		if e.PCR != 7 || len(e.Data) != 32+len(name)+1 || !bytes.Equal(e.Data[32:32+len(name)], name) {
			continue
		}
		e.Data[len(e.Data)-1] = 0
		for _, d := range e.Digests {
			h := d.Alg.Hash().New()
			h.Write(e.Data)
			copy(d.Sum, h.Sum(nil))
		}
		return out, nil
	}
	return nil, errors.New("the firmware log has no event of the variable SecureBoot")
}

func utf16Bytes(s string) []byte {
	var out []byte
	for _, u := range utf16.Encode([]rune(s)) {
		out = binary.LittleEndian.AppendUint16(out, u)
	}
	return out
}

// templateDigest is what the kernel extends into the sha256 bank for the template data of an entry.
func templateDigest(data []byte) []byte {
	sum := sha256.Sum256(data)
	return sum[:]
}

// Entry makes an entry of the template ima-sig as the kernel writes it (little endian, SHA-1 template hash, no signature), and
// the digest that the kernel extends for it.
func Entry(name string, digest []byte) (entry, extend []byte) {
	le := binary.LittleEndian
	var data []byte
	field := func(b []byte) { data = append(le.AppendUint32(data, uint32(len(b))), b...) }
	field(append([]byte("sha256:\x00"), digest...))
	field(append([]byte(name), 0))
	field(nil)
	const template = "ima-sig"
	hash := sha1.Sum(data) //nolint:gosec // as above
	entry = le.AppendUint32(entry, ima.PCR)
	entry = append(entry, hash[:]...)
	entry = append(le.AppendUint32(entry, uint32(len(template))), template...)
	entry = append(le.AppendUint32(entry, uint32(len(data))), data...)
	return entry, templateDigest(data)
}

// withAggregate replaces the first entry of a list by the boot_aggregate of other PCRs: the SHA-256 over PCR 0 to 9.
func withAggregate(list []byte, pcrs *tpm.Bank) ([]byte, error) {
	old, _ := Entry("boot_aggregate", make([]byte, sha256.Size))
	if len(list) < len(old) {
		return nil, errors.New("the IMA list is shorter than its first entry")
	}
	h := sha256.New()
	for _, v := range pcrs.Values[:10] {
		h.Write(v)
	}
	first, _ := Entry("boot_aggregate", h.Sum(nil))
	return append(first, list[len(old):]...), nil
}
