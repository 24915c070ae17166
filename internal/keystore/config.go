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
	File           string   `json:"file,omitempty"`           // 32 random bytes, or what Rotate made of them
	PassphraseFile string   `json:"passphraseFile,omitempty"` // one passphrase a line, the first is the current one
	TPM            *TPM     `json:"tpm,omitempty"`
	PKCS11         *PKCS11  `json:"pkcs11,omitempty"`
	Transit        *Transit `json:"transit,omitempty"`
}

// TPM keeps a random key sealed by the TPM of this machine, in the data folder of AIAS.
type TPM struct {
	Device string `json:"device"` // "/dev/tpmrm0", or the socket of a software TPM: "unix:PATH"
	PCRs   []int  `json:"pcrs"`   // unsealed only while these (SHA-256) are as they were; none: always on this machine
}

// PKCS11 uses AES-256 keys that never leave a token. Only an aias that was built with the tag pkcs11 (and cgo) can.
type PKCS11 struct {
	Module  string `json:"module"`  // the vendor's library
	Token   string `json:"token"`   // label of the token
	PINFile string `json:"pinFile"` // of its user
	Label   string `json:"label"`   // of the keys that AIAS makes there; "aias" when empty
}

// Transit uses AES-256 keys that never leave the transit engine of a Vault or OpenBao server.
type Transit struct {
	Address   string `json:"address"`             // https://HOST:PORT
	CAFile    string `json:"caFile,omitempty"`    // PEM; the roots of the system when empty
	TokenFile string `json:"tokenFile"`           // read at each use: an agent of the server renews it
	Mount     string `json:"mount,omitempty"`     // of the engine; "transit" when empty
	Key       string `json:"key,omitempty"`       // what the names of the keys begin with that AIAS makes there; "aias" when empty
	Namespace string `json:"namespace,omitempty"` // none when empty
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
	}{{"file", s.File != ""}, {"passphrase", s.PassphraseFile != ""}, {"tpm", s.TPM != nil}, {"pkcs11", s.PKCS11 != nil}, {"transit", s.Transit != nil}} {
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
		errs = append(errs, fmt.Errorf("%s: set one of file, passphraseFile, tpm, pkcs11 and transit", at))
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
	if t := s.Transit; t != nil {
		errs = append(errs, t.Validate(at+".transit"))
	}
	if p := s.PKCS11; p != nil {
		errs = append(errs, p.Validate(at+".pkcs11"))
	}
	return errors.Join(errs...)
}

// Validate checks that all is there that has no default; at is where in the configuration p stands.
func (p *PKCS11) Validate(at string) error {
	var errs []error
	for _, f := range []struct{ name, value string }{{"module", p.Module}, {"token", p.Token}, {"pinFile", p.PINFile}} {
		if f.value == "" {
			errs = append(errs, fmt.Errorf("%s.%s is empty", at, f.name))
		}
	}
	return errors.Join(errs...)
}
