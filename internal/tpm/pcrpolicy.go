package tpm

import (
	"crypto/sha256"
	"encoding/binary"
)

// commandPolicyPCR is TPM_CC_PolicyPCR (part 2, 6.5.2).
const commandPolicyPCR = 0x0000017f

// PCRPolicy computes the policy of an object with SHA-256 Names that is usable only while the selected PCRs have the values in bank: the
// digest that TPM2_PolicyPCR extends into a fresh policy session (part 3, 23.7).
func PCRPolicy(bank *Bank, pcrs PCRSet) ([]byte, error) {
	s := Selection{Alg: bank.Alg, PCRs: pcrs}
	values, err := PCRDigest(AlgSHA256, []Selection{s}, map[Alg]*Bank{bank.Alg: bank})
	if err != nil {
		return nil, err
	}
	b := binary.BigEndian.AppendUint32(make([]byte, sha256.Size), commandPolicyPCR)
	b = binary.BigEndian.AppendUint32(b, 1) // one selection
	b = binary.BigEndian.AppendUint16(b, uint16(s.Alg))
	b = append(b, NumPCRs/8, byte(pcrs), byte(pcrs>>8), byte(pcrs>>16))
	digest := sha256.Sum256(append(b, values...))
	return digest[:], nil
}
