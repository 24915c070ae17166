package machine

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"touchstone.dev/touchstone/internal/ima"
	"touchstone.dev/touchstone/internal/swtpm"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/device"
)

// Machine is one captured machine. Its methods must not be called at the same time.
type Machine struct {
	Name string
	Root string // of its file system

	dir  string
	opts swtpm.Options
	tpm  *swtpm.Process
}

// rootFolder stands for the file system, below the folder of a machine.
const rootFolder = "root"

// New returns the machine that lives in dir; nothing is there before its first Boot. Its TPM is certified by the authority in the folder
// ekCA (swtpm.Options.EKCA).
func New(dir, name, ekCA string) *Machine {
	return &Machine{
		Name: name, Root: filepath.Join(dir, rootFolder), dir: dir,
		opts: swtpm.Options{Dir: filepath.Join(dir, "tpm"), EKCA: ekCA, ID: name},
	}
}

// Address returns the address of the TPM for device.Open. The machine must have booted.
func (m *Machine) Address() string { return m.tpm.Address() }

// Socket returns the path of the TPM's socket. The machine must have booted.
func (m *Machine) Socket() string { return strings.TrimPrefix(m.Address(), "unix:") }

// Boot resets the TPM when it has run before, measures into it what the boot measures, and lays out the files. The TPM runs until
// Close, or until the ctx of the first Boot ends.
func (m *Machine) Boot(ctx context.Context, b *Boot) error {
	var err error
	if m.tpm == nil {
		m.tpm, err = swtpm.Start(ctx, m.opts)
	} else {
		err = m.tpm.Reboot(ctx)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	extensions, err := b.extensions()
	if err == nil {
		err = extend(m.Address(), extensions...)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(m.dir, addressFile), []byte(m.Address()), 0o600)
	}
	if err == nil {
		err = b.write(m.Root)
	}
	if err == nil {
		err = m.writeIdentity()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	return nil
}

// addressFile holds the address of the TPM, for Execute.
const addressFile = "tpm-address"

// Execute does what the kernel of the machine that lives in dir does when a program is run for the first time: it measures the file
// into PCR 10 and adds it to its list. The count that the agent watches changes last. The machine may be one of another process.
func Execute(dir, path string, content []byte) error {
	address, err := os.ReadFile(filepath.Join(dir, addressFile))
	if err != nil {
		return fmt.Errorf("find the TPM of the machine: %w", err)
	}
	digest := sha256.Sum256(content)
	entry, extends := Entry(path, digest[:])
	root := filepath.Join(dir, rootFolder)
	if err := appendList(root, entry); err != nil {
		return err
	}
	if err := extend(string(address), extension{ima.PCR, extends}); err != nil {
		return fmt.Errorf("measure %s: %w", path, err)
	}
	return recount(root)
}

// Execute runs a program for the first time: see the function Execute.
func (m *Machine) Execute(path string, content []byte) error {
	if err := Execute(m.dir, path, content); err != nil {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	return nil
}

// Close stops the TPM. Its state stays in the folder.
func (m *Machine) Close() error {
	if m.tpm == nil {
		return nil
	}
	return m.tpm.Stop()
}

// SystemUUID returns the SMBIOS UUID of the machine of a name: the same at every boot.
func SystemUUID(name string) string {
	sum := sha256.Sum256([]byte("machine " + name))
	return uuid(sum[:16], 8)
}

// writeIdentity writes what tells machines and boots apart: captured machines have only one boot in common.
func (m *Machine) writeIdentity() error {
	id := make([]byte, 16)
	rand.Read(id) //nolint:errcheck // it never fails
	for name, text := range map[string]string{UUIDFile: SystemUUID(m.Name), BootIDFile: uuid(id, 4)} {
		if err := writeFile(m.Root, name, []byte(text+"\n")); err != nil {
			return err
		}
	}
	return nil
}

// uuid writes 16 bytes as a UUID of a version (RFC 9562).
func uuid(b []byte, version byte) string {
	b[6], b[8] = b[6]&0x0f|version<<4, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// extend extends PCRs of the TPM at address.
func extend(address string, extensions ...extension) error {
	t, err := device.Open(address)
	if err != nil {
		return err
	}
	defer t.Close() //nolint:errcheck // nothing is buffered
	for _, e := range extensions {
		if err := t.Extend(e.pcr, map[tpm.Alg][]byte{tpm.AlgSHA256: e.digest}); err != nil {
			return err
		}
	}
	return nil
}
