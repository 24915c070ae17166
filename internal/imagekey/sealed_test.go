package imagekey

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"testing"

	"touchstone.dev/touchstone/internal/tpm"
)

func newECDH(t testing.TB) *ecdh.PrivateKey {
	t.Helper()
	k, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// broken is a TPM that does not do its part.
type broken struct {
	*ecdh.PrivateKey
	err error
}

func (b broken) ECDH(*ecdh.PublicKey) ([]byte, error) { return nil, b.err }

// TestSealTo: what is sealed for one TPM, node and key ID opens for none other.
func TestSealTo(t *testing.T) {
	mine, theirs := newECDH(t), newECDH(t)
	box, err := SealTo(mine.PublicKey(), "worker-1", idA, testKey)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenSealed(mine, "worker-1", idA, box); err != nil || !bytes.Equal(got, testKey) {
		t.Fatalf("OpenSealed(): got %x, %v", got, err)
	}
	open := func(by ecdh.KeyExchanger, node, id string, box []byte) error {
		_, err := OpenSealed(by, node, id, box)
		return err
	}
	flipped := bytes.Clone(box)
	flipped[len(flipped)-1] ^= 1
	offCurve := bytes.Clone(box)
	offCurve[40] ^= 1
	for name, err := range map[string]error{
		"another TPM": open(theirs, "worker-1", idA, box), "another node": open(mine, "worker-2", idA, box), "another ID": open(mine, "worker-1", idB, box),
		"flipped": open(mine, "worker-1", idA, flipped), "off the curve": open(mine, "worker-1", idA, offCurve), "short": open(mine, "worker-1", idA, box[:70]),
		"nothing": open(mine, "worker-1", idA, nil), "long": open(mine, "worker-1", idA, make([]byte, 4096)),
	} {
		if !errors.Is(err, ErrSealed) {
			t.Errorf("OpenSealed() %s: got %v, want %v", name, err, ErrSealed)
		}
	}
	why := errors.New("the TPM is in another state")
	if err := open(broken{mine, why}, "worker-1", idA, box); !errors.Is(err, why) {
		t.Errorf("OpenSealed() by a TPM that fails: got %v, want its reason", err)
	}
	if short, err := SealTo(mine.PublicKey(), "worker-1", idA, testKey[1:]); err != nil || open(mine, "worker-1", idA, short) == nil {
		t.Errorf("OpenSealed() of a short key: got no error (%v)", err)
	}
}

func TestBoundPCRs(t *testing.T) {
	all, err := BoundPCRs(tpm.PCRs(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 16))
	if err != nil || all != BootPCRs() {
		t.Errorf("BoundPCRs(all): got %v, %v, want %v", all, err, BootPCRs())
	}
	if got, err := BoundPCRs(tpm.PCRs(0, 1, 2, 3, 5, 6, 7)); err == nil {
		t.Errorf("BoundPCRs() without PCR 4: got %v, want an error", got)
	}
}
