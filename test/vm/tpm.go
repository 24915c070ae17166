package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// openCA prepares the folder of the TPM manufacturer's CA; swtpm_localca makes its keys with the first TPM.
func (l *Lab) openCA(ctx context.Context) error {
	_, err := l.tpmState(ctx, "first")
	return err
}

// EKRoots returns the PEM files of the TPM manufacturer's CA, the issuing one and its root: what an operator imports.
func (l *Lab) EKRoots() []string {
	ca := filepath.Join(l.cache, "tpm", "ca")
	return []string{filepath.Join(ca, "issuercert.pem"), filepath.Join(ca, "swtpm-localca-rootca-cert.pem")}
}

// tpmState returns the state folder of a TPM as it leaves the factory, with EK certificates; each name is another TPM.
func (l *Lab) tpmState(ctx context.Context, name string) (string, error) {
	return l.cached(ctx, "tpm", "state-"+digest([]byte("tpm 1"), []byte(name))[:24], func(ctx context.Context, dir string) error {
		ca := filepath.Join(l.cache, "tpm", "ca")
		if err := os.MkdirAll(ca, 0o755); err != nil {
			return err
		}
		conf, err := os.MkdirTemp("", "vm-tpm-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(conf)
		in := func(name string) string { return filepath.Join(conf, name) }
		for file, lines := range map[string][]string{
			"setup.conf": {
				"create_certs_tool = /usr/bin/swtpm_localca",
				"create_certs_tool_config = " + in("localca.conf"),
				"create_certs_tool_options = " + in("localca.options"),
				"active_pcr_banks = sha256",
			},
			"localca.conf": {
				"statedir = " + ca,
				"signingkey = " + filepath.Join(ca, "signkey.pem"),
				"issuercert = " + filepath.Join(ca, "issuercert.pem"),
				"certserial = " + filepath.Join(ca, "certserial"),
			},
			"localca.options": {"--platform-manufacturer QEMU", "--platform-version 7.2", "--platform-model q35"},
		} {
			if err := os.WriteFile(in(file), []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
				return err
			}
		}
		return l.run(ctx, dir, "swtpm_setup", "--tpm2", "--tpmstate", dir, "--config", in("setup.conf"),
			"--create-ek-cert", "--create-platform-cert", "--lock-nvram", "--pcr-banks", "sha256", "--vmid", name)
	})
}

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
