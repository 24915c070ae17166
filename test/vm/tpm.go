package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"touchstone.dev/touchstone/internal/swtpm"
)

// openCA makes the first TPM, and with it the manufacturer's CA.
func (l *Lab) openCA(ctx context.Context) error {
	_, err := l.tpmState(ctx, "first")
	return err
}

// EKRoots returns the PEM files of the TPM manufacturer's CA, its root and the issuing one: what an operator imports.
func (l *Lab) EKRoots() []string {
	return []string{swtpm.RootFile(l.ekCA()), swtpm.IssuerFile(l.ekCA())}
}

// tpmState returns the state folder of a TPM as it leaves the factory, with EK certificates; each name is another TPM.
func (l *Lab) tpmState(ctx context.Context, name string) (string, error) {
	dir, err := l.cached(ctx, "tpm", "state-"+digest([]byte("tpm 2"), []byte(name))[:24], func(ctx context.Context, dir string) error {
		return swtpm.Manufacture(ctx, swtpm.Options{Dir: dir, EKCA: l.ekCA(), ID: name})
	})
	return filepath.Join(dir, "state"), err
}

// ekCA is the folder of the TPM manufacturer's CA.
func (l *Lab) ekCA() string { return filepath.Join(l.cache, "tpm", "ca") }

// startTPM starts the software TPM of a machine on a socket; it ends when the machine does.
func startTPM(ctx context.Context, state, socket, logFile string) (*exec.Cmd, error) {
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+state,
		"--ctrl", "type=unixio,path="+socket, "--log", "file="+logFile+",level=1", "--terminate")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start swtpm: %w", err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			return cmd, nil
		}
		if ctx.Err() != nil || time.Now().After(end) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			b, _ := os.ReadFile(logFile)
			return nil, fmt.Errorf("swtpm does not listen on %s: %s", socket, b)
		}
	}
}
