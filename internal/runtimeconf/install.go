package runtimeconf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"
)

// CRI-O reads ocicrypt's configuration from the environment of its service.
const (
	CRIODropIn = "/etc/systemd/system/crio.service.d/touchstone-images.conf"
	CRIOFile   = "/etc/crio/ocicrypt_keyprovider.conf"
)

// Install writes files of a runtime below Root and remembers which.
type Install struct {
	Root    string // of the host: "/", or where it is mounted
	Socket  string // of the key provider, as the runtime sees it
	Decoder string // path of ctd-decoder, as the runtime sees it
	Wrote   []string
}

func (i *Install) write(file string, data []byte, mode fs.FileMode) error {
	path := filepath.Join(i.Root, file)
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, data) {
		return os.Chmod(path, mode)
	}
	err := os.MkdirAll(filepath.Dir(path), 0o755) //nolint:gosec // configuration, for everyone to read
	if err == nil {
		err = os.WriteFile(path+".new", data, mode)
	}
	if err == nil {
		err = os.Chmod(path+".new", mode)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	i.Wrote = append(i.Wrote, file)
	return nil
}

// Program puts ctd-decoder where the runtime finds it.
func (i *Install) Program(from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("the decoder: %w: it belongs beside trust-agent, or give --decoder FILE", err)
	}
	return i.write(i.Decoder, b, 0o755)
}

// Containerd writes the configuration for containerd. next is what a person has still to do by hand; "" when nothing.
func (i *Install) Containerd(v Version) (next string, err error) {
	err = i.write(KeyProviderFile, KeyProvider(i.Socket), 0o644)
	if err == nil {
		err = i.write(DropIn, Containerd(v, i.Decoder, KeyProviderFile), 0o644)
	}
	if err != nil {
		return "", err
	}
	imports := fmt.Sprintf("imports = [%q]", filepath.Dir(DropIn)+"/*.toml")
	b, err := os.ReadFile(filepath.Join(i.Root, ContainerdFile))
	if errors.Is(err, fs.ErrNotExist) {
		version := min(v.Major+1, 3)
		return "", i.write(ContainerdFile, fmt.Appendf(nil, "version = %d\n%s\n", version, imports), 0o644)
	}
	if err != nil {
		return "", err
	}
	var c struct {
		Imports []string `toml:"imports"`
	}
	if err := toml.Unmarshal(b, &c); err != nil {
		return "", fmt.Errorf("%s: %w", ContainerdFile, err)
	}
	for _, pattern := range c.Imports {
		if ok, err := filepath.Match(pattern, DropIn); err == nil && ok {
			return "", nil
		}
	}
	return fmt.Sprintf("add to %s, above the first [table]: %s (and keep what it imports already)", ContainerdFile, imports), nil
}

// CRIO writes the configuration for CRI-O, which decrypts by itself.
func (i *Install) CRIO() error {
	err := i.write(CRIOFile, KeyProvider(i.Socket), 0o644)
	if err == nil {
		err = i.write(CRIODropIn, []byte("# Written by `trust-agent image-provider install`: encrypted images.\n[Service]\nEnvironment="+envConfig+"="+CRIOFile+"\n"), 0o644)
	}
	return err
}

// CheckCRIO says what keeps CRI-O from decrypting images. It looks at files: CRI-O does not tell its environment.
func CheckCRIO(h Host) []string {
	b, err := h.Read(CRIODropIn)
	if err != nil {
		return []string{fmt.Sprintf("%v: run `trust-agent image-provider install --runtime cri-o`", err)}
	}
	if !bytes.Contains(b, []byte(envConfig+"="+CRIOFile)) {
		return []string{fmt.Sprintf("%s does not set %s=%s", CRIODropIn, envConfig, CRIOFile)}
	}
	if b, err = h.Read(CRIOFile); err != nil {
		return []string{err.Error()}
	}
	return checkKeyProvider(CRIOFile, b, h.Socket)
}
