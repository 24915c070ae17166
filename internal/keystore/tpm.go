package keystore

import (
	"context"
	"errors"
	"fmt"

	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/device"
)

// sealedKey is a key that a TPM sealed. PCRs are in the record too: a change of the configuration is for the next key.
type sealedKey struct {
	Public  []byte `json:"public"`
	Private []byte `json:"private"`
	PCRs    []int  `json:"pcrs,omitempty"`
}

func (s *sealedKey) check() error {
	if s == nil {
		return nil
	}
	if len(s.Public) > 1024 || len(s.Private) > 1024 {
		return errors.New("a sealed key is too large")
	}
	for _, p := range s.PCRs {
		if p < 0 || p >= tpm.NumPCRs {
			return fmt.Errorf("there is no PCR %d", p)
		}
	}
	return nil
}

// tpmSource has keys sealed by a TPM. It is opened for each use: its resource manager is shared with others.
type tpmSource struct{ TPM }

func selection(pcrs []int) tpm.Selection {
	s := tpm.Selection{Alg: tpm.AlgSHA256}
	for _, p := range pcrs {
		s.PCRs |= 1 << p
	}
	return s
}

func (t *tpmSource) find(_ context.Context, records []record) (out []KEK, err error) {
	var dev *device.TPM
	for _, r := range records {
		if r.TPM == nil {
			continue
		}
		if dev == nil {
			if dev, err = device.Open(t.Device); err != nil {
				return nil, err
			}
			defer dev.Close() //nolint:errcheck // nothing was written to it
		}
		raw, err := dev.Unseal(r.TPM.Public, r.TPM.Private, selection(r.TPM.PCRs))
		if err != nil {
			return nil, fmt.Errorf("key-encryption key %s: %w: restore a backup, or boot the state that it was sealed to and rotate", r.ID, err)
		}
		k, err := newKey("tpm", raw)
		if err != nil || k.id != r.ID {
			return nil, fmt.Errorf("key-encryption key %s: the TPM unsealed another one: the records were changed: restore a backup", r.ID)
		}
		out = append(out, k)
	}
	return out, nil
}

func (t *tpmSource) add(context.Context, []record) (KEK, record, error) {
	dev, err := device.Open(t.Device)
	if err != nil {
		return nil, record{}, err
	}
	defer dev.Close() //nolint:errcheck // nothing is kept in it
	k, err := newKey("tpm", randomKey())
	if err != nil {
		return nil, record{}, err
	}
	public, private, err := dev.Seal(k.raw, selection(t.PCRs))
	if err != nil {
		return nil, record{}, err
	}
	return k, record{TPM: &sealedKey{public, private, t.PCRs}}, nil
}

func (t *tpmSource) retire(context.Context, []record, []record) error { return nil }
