package device

import (
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Measure extends a PCR with the hash of data, in every active bank (TPM2_PCR_Event, part 3, 22.3): a bank that was left out could pretend that
// nothing happened.
func (t *TPM) Measure(pcr int, data []byte) error {
	return t.do(fmt.Sprintf("extend PCR %d", pcr), func() error {
		_, err := tpm2.PCREvent{
			PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)}, EventData: tpm2.TPM2BEvent{Buffer: data},
		}.Execute(t.link)
		return err
	})
}
