package keystore

import (
	"errors"
	"fmt"
	"strings"
)

// Config says where the key-encryption keys of AIAS are (part `keys` of its configuration; deploy/aias.yaml says what each field means).
type Config struct {
	Source
	Older []Source `json:"older,omitempty"` // keep opening what these have sealed, until a rotation is through
}

// Source is one place of key-encryption keys. Exactly one field is set.
type Source struct {
	File           string `json:"file,omitempty"`           // 32 random bytes, or what Rotate made of them
	PassphraseFile string `json:"passphraseFile,omitempty"` // one passphrase a line, the first is the current one
	TPM            *TPM   `json:"tpm,omitempty"`
}

// TPM keeps a random key sealed by the TPM of this machine, in the data folder of AIAS.
type TPM struct {
	Device string `json:"device"` // "/dev/tpmrm0", or the socket of a software TPM: "unix:PATH"
	PCRs   []int  `json:"pcrs"`   // unsealed only while these (SHA-256) are as they were; none: always on this machine
}

// Empty tells whether no source is set.
func (s Source) Empty() bool { return s == Source{} }

// Validate checks that each source names one place, and names it fully.
func (c Config) Validate() error {
	errs := []error{c.Source.validate("keys")}
	for i, s := range c.Older {
		errs = append(errs, s.validate(fmt.Sprintf("keys.older[%d]", i)))
	}
	return errors.Join(errs...)
}

// kinds returns the kinds of place that are set; one, when the source is valid. A kind begins the IDs of its keys.
func (s Source) kinds() (kinds []string) {
	for _, k := range []struct {
		kind string
		set  bool
	}{{"file", s.File != ""}, {"passphrase", s.PassphraseFile != ""}, {"tpm", s.TPM != nil}} {
		if k.set {
			kinds = append(kinds, k.kind)
		}
	}
	return kinds
}

func (s Source) validate(at string) error {
	var errs []error
	need := func(field, value string) {
		if value == "" {
			errs = append(errs, fmt.Errorf("%s.%s is empty", at, field))
		}
	}
	switch kinds := s.kinds(); {
	case len(kinds) == 0:
		errs = append(errs, fmt.Errorf("%s: set one of file, passphraseFile and tpm", at))
	case len(kinds) > 1:
		errs = append(errs, fmt.Errorf("%s: %s are set: choose one, and list the other under keys.older while it is still needed", at, strings.Join(kinds, " and ")))
	}
	if t := s.TPM; t != nil {
		need("tpm.device", t.Device)
		for _, p := range t.PCRs {
			if p < 0 || p > 23 {
				errs = append(errs, fmt.Errorf("%s.tpm.pcrs: there is no PCR %d", at, p))
			}
		}
	}
	return errors.Join(errs...)
}
