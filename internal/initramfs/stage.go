package initramfs

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"sigs.k8s.io/yaml"

	"touchstone.dev/touchstone/internal/agent"
)

// Places of the agent's files in an initramfs.
const (
	configPath = "etc/trust-agent.yaml"
	stateDir   = "/var/lib/trust-agent"
)

// Renewer gets the enrolment for an initramfs; agent.BootIdentity is one.
type Renewer func(ctx context.Context, cfg *agent.Config, id *agent.Identity) (*agent.Identity, error)

// Stage writes configuration and enrolment of an agent into an initramfs that is being made in dir: what it needs to attest, and nothing secret. There is
// no token in it: an initramfs can be read by who has the disk.
//
// renew gets an enrolment whose certificate lasts as long as an initramfs may; when that fails it says so on warn, and the present one goes in, which
// ends sooner.
func Stage(ctx context.Context, dir string, cfg agent.Config, renew Renewer, warn io.Writer) error {
	id, err := agent.LoadIdentity(cfg.StateDir)
	if err != nil {
		return err
	}
	if long, err := renew(ctx, &cfg, id); err == nil {
		id = long
	} else if _, until, err2 := id.Validity(); err2 == nil {
		fmt.Fprintf(warn, "W: trust-agent: AIAS gave no certificate for the initramfs: it attests until %s only, unless it is made anew: %v\n", until.Format(time.DateOnly), err)
	}
	boot := agent.Defaults()
	boot.Server, boot.Node, boot.TPM, boot.Timeout, boot.NVTag.Index = cfg.Server, id.Node, cfg.TPM, cfg.Timeout, cfg.NVTag.Index
	boot.StateDir, boot.StatusFile = stateDir, ""
	if err := boot.Validate(); err != nil {
		return fmt.Errorf("configuration for the initramfs: %w", err)
	}
	text, err := yaml.Marshal(boot)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(configPath)), 0o755); err != nil { //nolint:gosec // /etc
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, configPath), text, 0o644); err != nil { //nolint:gosec // nothing in it is secret
		return err
	}
	return id.Save(filepath.Join(dir, stateDir))
}
