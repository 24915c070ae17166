package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/agent"
)

// readOrDefault reads the configuration. The default file may be missing: then flags must say what is needed.
func readOrDefault(path string) (agent.Config, error) {
	cfg, err := agent.ReadConfig(path)
	if errors.Is(err, fs.ErrNotExist) && path == defaultConfig {
		return agent.Defaults(), nil
	}
	return cfg, err
}

// load reads the configuration, lets flags win, and validates the outcome.
func load(path string, override func(*agent.Config)) (agent.Config, error) {
	cfg, err := readOrDefault(path)
	if err != nil {
		return cfg, err
	}
	if override != nil {
		override(&cfg)
	}
	return cfg, cfg.Validate()
}

func enrolCmd() *cobra.Command {
	var config, token, tokenFile string
	var flags agent.Config
	var force bool
	cmd := &cobra.Command{
		Use:   "enrol --server URL --token TOKEN --ca-hash HASH",
		Short: "Make this worker known to AIAS, once",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			secret, err := readToken(token, tokenFile, cmd.InOrStdin())
			if err != nil {
				return err
			}
			cfg, err := load(config, func(c *agent.Config) { merge(c, &flags) })
			if err != nil {
				return err
			}
			if id, err := agent.LoadIdentity(cfg.StateDir); err == nil && !force {
				return fmt.Errorf("already enrolled as %s with %s: use --force to enrol again", id.Node, id.Server)
			}
			return enrol(cmd.Context(), &cfg, secret, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&config, "config", defaultConfig, "configuration `FILE`")
	f.StringVar(&flags.Server, "server", "", "https `URL` of AIAS")
	f.StringVar(&token, "token", "", "join `TOKEN`; other users of this machine can see it while the command runs")
	f.StringVar(&tokenFile, "token-file", "", "`FILE` with the join token, - for standard input")
	f.StringVar(&flags.CAHash, "ca-hash", "", "`HASH` of the root of AIAS (sha256:...), as it came with the token")
	f.StringVar(&flags.CAFile, "ca-file", "", "PEM `FILE` of the root of AIAS")
	f.StringVar(&flags.Node, "node", "", "`NAME` of this worker (default: the host name)")
	f.StringVar(&flags.TPM, "tpm", "", "TPM device, or unix:PATH for a software TPM")
	f.StringVar(&flags.StateDir, "state", "", "state `FOLDER`")
	f.BoolVar(&force, "force", false, "enrol again although there is an enrolment")
	return cmd
}

// merge lets flags that were given win over the configuration.
func merge(c, flags *agent.Config) {
	for _, f := range []struct{ to, from *string }{
		{&c.Server, &flags.Server}, {&c.Node, &flags.Node}, {&c.TPM, &flags.TPM}, {&c.StateDir, &flags.StateDir},
	} {
		if *f.from != "" {
			*f.to = *f.from
		}
	}
	if flags.CAFile != "" || flags.CAHash != "" {
		c.CAFile, c.CAHash = flags.CAFile, flags.CAHash
	}
}

func readToken(token, file string, stdin io.Reader) (string, error) {
	switch {
	case token != "" && file != "":
		return "", fmt.Errorf("--token and --token-file are both set: choose one: %w", errUsage)
	case token != "":
		return token, nil
	case file == "-":
		b, err := io.ReadAll(io.LimitReader(stdin, 64<<10))
		return strings.TrimSpace(string(b)), err
	case file != "":
		b, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("read the join token: %w", err)
		}
		return strings.TrimSpace(string(b)), nil
	}
	return "", fmt.Errorf("a join token is needed: --token or --token-file: %w", errUsage)
}

// enrolTimeout bounds an enrolment: the slowest TPMs make keys for tens of seconds.
const enrolTimeout = 5 * time.Minute

func enrol(ctx context.Context, cfg *agent.Config, token string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	t, err := agent.OpenTPM(cfg.TPM)
	if err != nil {
		return err
	}
	defer t.Close() //nolint:errcheck // nothing is buffered
	id, _, err := agent.EnrolOnce(ctx, cfg, t, token, time.Now())
	if err != nil {
		return err
	}
	_, until, err := id.Validity()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s is enrolled with %s; its certificate is valid until %s and renewed before\n",
		id.Node, id.Server, until.Local().Format(time.DateTime))
	return nil
}
