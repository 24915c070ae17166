package assettag

import (
	"fmt"

	"touchstone.dev/touchstone/internal/tpm"
)

// NV indices that the owner of a TPM may define (TCG Registry of Reserved TPM 2.0 Handles and Localities), and the one that an agent
// takes when its configuration names no other.
const (
	FirstIndex   uint32 = 0x01800000
	LastIndex    uint32 = 0x01bfffff
	DefaultIndex uint32 = 0x01a7a600
)

// Attributes are those of the index that holds a record, before it is written: only the owner writes it, whole; everybody reads it; it is
// kept in non-volatile memory at once (not orderly), and nothing locks or clears it.
const Attributes = tpm.NVOwnerWrite | tpm.NVWriteAll | tpm.NVOwnerRead | tpm.NVAuthRead | tpm.NVNoDA

// CheckIndex compares an index with the one that holds a record. Anything else about it is refused: other attributes may let somebody else
// write it, or let its content come back after a power loss.
func CheckIndex(p *tpm.NVPublic) error {
	switch {
	case p.Index < FirstIndex || p.Index > LastIndex:
		return fmt.Errorf("index %#08x is not one of the owner (%#08x to %#08x)", p.Index, FirstIndex, LastIndex)
	case p.Attributes&tpm.NVWritten == 0:
		return fmt.Errorf("index %#08x was never written", p.Index)
	case p.Attributes != Attributes|tpm.NVWritten:
		return fmt.Errorf("index %#08x has attributes %#08x, want %#08x", p.Index, p.Attributes, Attributes|tpm.NVWritten)
	case len(p.AuthPolicy) != 0:
		return fmt.Errorf("index %#08x has a policy, want none", p.Index)
	case p.DataSize != Size:
		return fmt.Errorf("index %#08x has %d bytes, want %d", p.Index, p.DataSize, Size)
	}
	return nil
}
