package ima

import (
	"bytes"
	"fmt"

	"touchstone.dev/touchstone/internal/tpm"
)

// CheckBootAggregate checks the first entry of a list against the quoted PCRs of the same boot: it is the hash over PCR 0 to 9
// in the bank of the entry's algorithm, or over PCR 0 to 7 where that is SHA-1 (and in kernels that took up other banks
// before PCR 8 and 9, Linux, ima_calc_boot_aggregate).
//
// It returns nil when they agree, ErrNotComputable when the PCRs needed are not in banks, else ErrAggregate. A kernel that
// found no TPM writes zeros; that is ErrAggregate too.
func CheckBootAggregate(e *Entry, banks map[tpm.Alg]*tpm.Bank) error {
	if e == nil || e.Path != AggregateName || e.Violation || e.Problem != "" {
		return fmt.Errorf("%w: the list does not begin with a boot_aggregate", ErrAggregate)
	}
	return checkAggregate(e.Alg, e.Digest, banks)
}

// CheckBootAggregate checks the boot aggregate that was seen when the list was verified from its start; see the function of
// the same name.
func (s State) CheckBootAggregate(banks map[tpm.Alg]*tpm.Bank) error {
	if len(s.Aggregate) == 0 {
		return fmt.Errorf("%w: the list does not begin with a boot_aggregate", ErrAggregate)
	}
	return checkAggregate(s.AggregateAlg, s.Aggregate, banks)
}

func checkAggregate(alg tpm.Alg, digest []byte, banks map[tpm.Alg]*tpm.Bank) error {
	if isZero(digest) {
		return fmt.Errorf("%w: it is zero, the kernel found no TPM when IMA started", ErrAggregate)
	}
	bank := banks[alg]
	if bank == nil {
		return fmt.Errorf("%w: it is over bank %v; quote PCR 0 to 9 of that bank", ErrNotComputable, alg)
	}
	lengths := []int{10, 8}
	if alg == tpm.AlgSHA1 {
		lengths = []int{8}
	}
	missing := -1
	for _, n := range lengths {
		var data []byte
		whole := true
		for i, v := range bank.Values[:n] {
			if len(v) != alg.Size() {
				whole, missing = false, i
				break
			}
			data = append(data, v...)
		}
		if !whole {
			continue
		}
		h := alg.Hash().New()
		h.Write(data)
		if bytes.Equal(h.Sum(nil), digest) {
			return nil
		}
	}
	if missing >= 0 {
		return fmt.Errorf("%w: PCR %d of bank %v is not quoted", ErrNotComputable, missing, alg)
	}
	return fmt.Errorf("%w: bank %v, entry says %x", ErrAggregate, alg, digest)
}
