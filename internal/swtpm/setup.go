package swtpm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"touchstone.dev/touchstone/internal/tpm"
)

// ErrNotInstalled says that a program of swtpm is missing.
var ErrNotInstalled = errors.New("swtpm is not installed (Debian: apt-get install swtpm swtpm-tools)")

// Options say where a software TPM lives and how it is made.
type Options struct {
	// Dir keeps the TPM's state, log and sockets. It is created with mode 0700. A folder that has a state already keeps it;
	// then Banks, EKCA and ID are not looked at.
	Dir string
	// Banks are the active PCR banks. Default: SHA-256.
	Banks []tpm.Alg
	// EKCA is the folder of the local authority that certifies the endorsement keys, created when it is missing; two TPMs with
	// the same folder share it. Empty: no EK certificates, and the TPM is made much faster.
	EKCA string
	// ID is the name in the EK certificate. Default: the last element of Dir.
	ID string
}

// RootFile returns where the authority in the folder ekca keeps its root certificate (PEM).
func RootFile(ekca string) string { return filepath.Join(ekca, "swtpm-localca-rootca-cert.pem") }

// IssuerFile returns where the authority in the folder ekca keeps the intermediate certificate that issues (PEM).
func IssuerFile(ekca string) string { return filepath.Join(ekca, "issuercert.pem") }

// Manufacture makes the state of a new TPM in o.Dir, or does nothing when there is one. It costs about a second of CPU time with
// certificates.
func Manufacture(ctx context.Context, o Options) error {
	o, err := o.withDefaults()
	if err != nil {
		return err
	}
	state := filepath.Join(o.Dir, "state")
	if _, err := os.Stat(filepath.Join(state, "tpm2-00.permall")); err == nil {
		return nil
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		return fmt.Errorf("make software TPM: %w", err)
	}
	banks := make([]string, len(o.Banks))
	for i, b := range o.Banks {
		banks[i] = b.String()
	}
	args := []string{"--tpm2", "--tpmstate", state, "--pcr-banks", strings.Join(banks, ",")}
	if o.EKCA != "" {
		config, err := o.writeConfig()
		if err != nil {
			return fmt.Errorf("make software TPM: %w", err)
		}
		args = append(args, "--config", config, "--create-ek-cert", "--lock-nvram", "--vmid", o.ID)
	}
	out, err := exec.CommandContext(ctx, "swtpm_setup", args...).CombinedOutput() //nolint:gosec // our own arguments
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("make software TPM: %w", ErrNotInstalled)
	}
	if err != nil {
		_ = os.RemoveAll(state) // half a state would look like a whole one to the next start
		return fmt.Errorf("make software TPM in %s: swtpm_setup: %w\n%s", o.Dir, err, out)
	}
	return nil
}

func (o Options) withDefaults() (Options, error) {
	if o.Dir == "" {
		return o, errors.New("software TPM: no folder given for its state")
	}
	var err error
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return o, fmt.Errorf("software TPM: %w", err)
	}
	if o.EKCA != "" {
		if o.EKCA, err = filepath.Abs(o.EKCA); err != nil {
			return o, fmt.Errorf("software TPM: %w", err)
		}
	}
	if len(o.Banks) == 0 {
		o.Banks = []tpm.Alg{tpm.AlgSHA256}
	}
	if o.ID == "" {
		o.ID = filepath.Base(o.Dir)
	}
	return o, nil
}

// writeConfig writes the three files that tell swtpm_setup to use the authority in o.EKCA, and returns the first.
func (o Options) writeConfig() (string, error) {
	tool, err := exec.LookPath("swtpm_localca")
	if err != nil {
		return "", ErrNotInstalled
	}
	if err := os.MkdirAll(o.EKCA, 0o700); err != nil {
		return "", err
	}
	setup, ca, options := filepath.Join(o.Dir, "setup.conf"), filepath.Join(o.Dir, "localca.conf"), filepath.Join(o.Dir, "localca.options")
	for name, text := range map[string]string{
		setup: fmt.Sprintf("create_certs_tool = %s\ncreate_certs_tool_config = %s\ncreate_certs_tool_options = %s\n", tool, ca, options),
		ca: fmt.Sprintf("statedir = %s\nsigningkey = %s\nissuercert = %s\ncertserial = %s\n", o.EKCA,
			filepath.Join(o.EKCA, "signkey.pem"), IssuerFile(o.EKCA), filepath.Join(o.EKCA, "certserial")),
		options: "--platform-manufacturer Touchstone\n--platform-version 1.0\n--platform-model software\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	return setup, nil
}
