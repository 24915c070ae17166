package evidence

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"touchstone.dev/touchstone/internal/tpm"
)

// maxPCRFile bounds a file of PCR values: all banks as text.
const maxPCRFile = 64 << 10

var errNoValues = errors.New("no values found: want the file of tpm2_quote --pcr or tpm2_pcrread --output, what tpm2_pcrread prints, or JSON")

// ParsePCRs reads PCR values in any form that people have them in: the files of tpm2_quote --pcr and tpm2_pcrread --output
// (serialized, or plain values, which only make sense with the selections of the quote), what tpm2_pcrread prints, or JSON,
// {"sha256":{"0":"hex"}} or {"0":"hex"} with the bank told by the length. Banks that Touchstone does not know are left out.
// PCRs beyond those quoted are kept: the Verifier uses only quoted ones. The result is ascending by algorithm.
func ParsePCRs(b []byte, selections []tpm.Selection) ([]PCRBank, error) {
	if len(b) > maxPCRFile {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrLimit, maxPCRFile)
	}
	p := pcrs{}
	var err error
	switch trimmed := bytes.TrimLeft(b, " \t\r\n"); {
	case len(trimmed) > 0 && trimmed[0] == '{' && isText(b):
		err = p.json(trimmed)
	case isText(b):
		err = p.yaml(b)
	case p.serialized(b) == nil:
	case len(selections) == 0:
		err = errors.New("neither text nor the serialized form of tpm2-tools; plain values need a quote that selects them")
	case !p.values(b, selections):
		err = errors.New("neither text nor the serialized form of tpm2-tools, and not the size of the values that the quote selects")
	}
	if err != nil {
		return nil, err
	}
	if len(p) == 0 {
		return nil, errNoValues
	}
	var out []PCRBank
	for _, alg := range slices.Sorted(maps.Keys(p)) {
		out = append(out, PCRBank{Alg: alg, Values: p[alg]})
	}
	return out, nil
}

// isText reports whether b is plain text: digests as bytes never are.
func isText(b []byte) bool {
	for _, c := range b {
		if (c < ' ' || c > '~') && c != '\n' && c != '\r' && c != '\t' {
			return false
		}
	}
	return true
}

// pcrs collects values by bank.
type pcrs map[tpm.Alg]map[int][]byte

func (p pcrs) add(alg tpm.Alg, index int, value []byte) error {
	if index < 0 || index >= tpm.NumPCRs {
		return fmt.Errorf("there is no PCR %d", index)
	}
	if len(value) != alg.Size() {
		return fmt.Errorf("PCR %d of bank %v has %d bytes, want %d", index, alg, len(value), alg.Size())
	}
	if p[alg] == nil {
		p[alg] = map[int][]byte{}
	}
	if _, ok := p[alg][index]; ok {
		return fmt.Errorf("PCR %d of bank %v is given twice", index, alg)
	}
	p[alg][index] = bytes.Clone(value)
	return nil
}

// Sizes of the C structures that tpm2-tools writes, in little-endian order.
const (
	cSelections = 16           // TPMS_PCR_SELECTION in a TPML_PCR_SELECTION, 8 bytes each
	cSelection  = 8            // hash 2, size 1, 4 bytes of bits, 1 of padding
	cDigests    = 8            // TPM2B_DIGEST in a TPML_DIGEST
	cDigest     = 2 + 64       // size and buffer
	cHead       = 4 + 16*8 + 4 // TPML_PCR_SELECTION and the number of TPML_DIGEST
	cList       = 4 + 8*cDigest
)

// serialized reads the default form of tpm2_quote --pcr: a TPML_PCR_SELECTION, a count, as many TPML_DIGEST. The values stand in the
// order of the selections.
func (p pcrs) serialized(b []byte) error {
	bad := func(what string) error {
		clear(p)
		return fmt.Errorf("not in the serialized form of tpm2-tools: %s", what)
	}
	if len(b) < cHead+cList || (len(b)-cHead)%cList != 0 {
		return bad("size")
	}
	n := binary.LittleEndian.Uint32(b)
	lists := binary.LittleEndian.Uint32(b[cHead-4:])
	if n == 0 || n > cSelections || int64(lists)*cList != int64(len(b)-cHead) {
		return bad("counts")
	}
	var digests [][]byte
	for at := cHead; at < len(b); at += cList {
		count := binary.LittleEndian.Uint32(b[at:])
		if count > cDigests {
			return bad("count of digests")
		}
		for i := range int(count) {
			d := b[at+4+i*cDigest:]
			size := binary.LittleEndian.Uint16(d)
			if size > 64 {
				return bad("size of a digest")
			}
			digests = append(digests, d[2:2+size])
		}
	}
	for i := range int(n) {
		s := b[4+i*cSelection:]
		if s[2] > 4 {
			return bad("size of a selection")
		}
		alg := tpm.Alg(binary.LittleEndian.Uint16(s))
		for index := range 8 * int(s[2]) {
			if s[3+index/8]&(1<<(index%8)) == 0 {
				continue
			}
			if len(digests) == 0 {
				return bad("fewer digests than selected")
			}
			if alg.Size() > 0 {
				if err := p.add(alg, index, digests[0]); err != nil {
					return bad(err.Error())
				}
			}
			digests = digests[1:]
		}
	}
	if len(digests) > 0 {
		return bad("more digests than selected")
	}
	return nil
}

// values reads concatenated digests in the order of the quote's selections (--pcrs_format values). It reports whether the sizes fit.
func (p pcrs) values(b []byte, selections []tpm.Selection) bool {
	clear(p)
	for _, s := range selections {
		for _, i := range s.PCRs.Indices() {
			n := s.Alg.Size()
			if n == 0 || n > len(b) || p.add(s.Alg, i, b[:n]) != nil {
				return false
			}
			b = b[n:]
		}
	}
	return len(b) == 0
}

// json reads {"sha256":{"0":"hex"}} or {"0":"hex"}.
func (p pcrs) json(b []byte) error {
	var banks map[string]json.RawMessage
	if err := json.Unmarshal(b, &banks); err != nil {
		return err
	}
	for name, raw := range banks {
		if _, err := strconv.Atoi(name); err == nil {
			if err := p.flat(name, raw); err != nil {
				return err
			}
			continue
		}
		alg, err := tpm.ParseHashAlg(name)
		if err != nil {
			continue
		}
		var values map[string]string
		if err := json.Unmarshal(raw, &values); err != nil {
			return fmt.Errorf("bank %s: %w", name, err)
		}
		for index, value := range values {
			if err := p.text(alg, index, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// flat takes a value without a bank.
func (p pcrs) flat(index string, raw json.RawMessage) error {
	var value string
	if err := json.Unmarshal(raw, &value); err != nil {
		return fmt.Errorf("PCR %s: %w", index, err)
	}
	digits := len(trimHex(value))
	for _, alg := range tpm.HashAlgs {
		if digits == 2*alg.Size() {
			return p.text(alg, index, value)
		}
	}
	return fmt.Errorf("PCR %s has %d digits: want 40, 64, 96 or 128", index, digits)
}
