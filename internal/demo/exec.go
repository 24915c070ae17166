package demo

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/device"
)

// addressFile holds the address of a worker's TPM, for Exec.
const addressFile = "tpm-address"

// Exec lets a worker of a demo that was left running in dir execute a program that nobody knows.
func Exec(dir, node, path string) error {
	w := newWorker(dir, node, "", slog.New(slog.DiscardHandler))
	address, err := os.ReadFile(filepath.Join(filepath.Dir(w.root), addressFile))
	if err != nil || filepath.Base(node) != node {
		return fmt.Errorf("no worker %q in the demo of %s: use one of %s", node, dir, strings.Join(workers, ", "))
	}
	return w.measure(string(address), path, []byte("a program that nobody knows: "+path))
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
