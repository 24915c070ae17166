package evidence

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"touchstone.dev/touchstone/internal/tpm"
)

// yaml reads what tpm2_pcrread and tpm2_quote print: lines "sha256:" followed by lines "0 : 0xHEX". It is no YAML parser: to one,
// the values would be numbers. Lines that are neither are passed over when they look like the rest of that output.
func (p pcrs) yaml(b []byte) error {
	var bank tpm.Alg
	for n, line := range strings.Split(string(b), "\n") {
		key, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if !ok {
			if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "---") {
				continue
			}
			return fmt.Errorf("line %d: want what tpm2_pcrread prints, got %.40q", n+1, line)
		}
		if _, err := strconv.Atoi(key); err == nil {
			if bank == 0 {
				continue // of a bank that is not known
			}
			if err := p.text(bank, key, value); err != nil {
				return fmt.Errorf("line %d: %w", n+1, err)
			}
			continue
		}
		bank = 0
		if alg, err := tpm.ParseHashAlg(key); err == nil && value == "" {
			bank = alg
		}
	}
	return nil
}

// text adds a value from text: an index, and hexadecimal digits with or without 0x.
func (p pcrs) text(alg tpm.Alg, index, value string) error {
	i, err := strconv.Atoi(index)
	if err != nil {
		return fmt.Errorf("PCR index %.20q is no number", index)
	}
	b, err := hex.DecodeString(trimHex(value))
	if err != nil {
		return fmt.Errorf("PCR %d of bank %v: want hexadecimal digits: %w", i, alg, err)
	}
	return p.add(alg, i, b)
}

func trimHex(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > 1 && (s[:2] == "0x" || s[:2] == "0X") {
		return s[2:]
	}
	return s
}
