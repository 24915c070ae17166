// Package lukstest makes LUKS2 headers for tests of other packages.
package lukstest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
)

// UUID is that of every header.
const UUID = "01234567-89ab-cdef-0123-456789abcdef"

// DM is what dm/uuid says of the opened volume.
const DM = "CRYPT-LUKS2-0123456789abcdef0123456789abcdef-name"

// Header is a stripped header whose key slots open by the given tokens, the first one in slot 0; "" is a slot without one.
func Header(tokens ...string) []byte {
	var slots, all []string
	for i, t := range tokens {
		slots = append(slots, fmt.Sprintf(`"%d":{"type":"luks2"}`, i))
		if t != "" {
			all = append(all, fmt.Sprintf(`"%d":{"keyslots":["%d"],%s}`, i, i, t))
		}
	}
	json := fmt.Sprintf(`{"keyslots":{%s},"tokens":{%s},"segments":{"0":{"type":"crypt","encryption":"aes-xts-plain64"}}}`, strings.Join(slots, ","), strings.Join(all, ","))
	b := make([]byte, 4096)
	copy(b, "LUKS\xba\xbe\x00\x02")
	binary.BigEndian.PutUint64(b[8:], 16<<10)
	copy(b[72:], "sha256")
	copy(b[168:], UUID)
	b = append(b, json...)
	whole := append(b, make([]byte, 16<<10-len(b))...)
	sum := sha256.Sum256(whole)
	copy(b[448:], sum[:])
	return b
}

// Tang is a token of clevis: a Tang server, and the thumbprint of its key.
func Tang(url, kid string) string { return Clevis(tang(url, kid)) }

// TPM2 is a token of clevis: the TPM in a state of some PCRs.
func TPM2(pcrs string) string { return Clevis(tpm2(pcrs)) }

// Sharing is a token of clevis: so many of a Tang server and the TPM.
func Sharing(threshold int, url, kid, pcrs string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return Clevis(fmt.Sprintf(`{"clevis":{"pin":"sss","sss":{"t":%d,"jwe":[%q,%q]}}}`, threshold, encode([]byte(tang(url, kid))), encode([]byte(tpm2(pcrs)))))
}

// Clevis is a token of clevis with a protected header.
func Clevis(protected string) string {
	return fmt.Sprintf(`"type":"clevis","jwe":{"protected":%q}`, base64.RawURLEncoding.EncodeToString([]byte(protected)))
}

func tang(url, kid string) string {
	return fmt.Sprintf(`{"clevis":{"pin":"tang","tang":{"url":%q,"adv":{"keys":[]}}},"kid":%q}`, url, kid)
}

func tpm2(pcrs string) string {
	return fmt.Sprintf(`{"clevis":{"pin":"tpm2","tpm2":{"pcr_bank":"sha256","pcr_ids":%q}}}`, pcrs)
}
