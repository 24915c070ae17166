package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/agent"
	"touchstone.dev/touchstone/internal/cri"
	"touchstone.dev/touchstone/internal/keyprovider"
	"touchstone.dev/touchstone/internal/runtimeconf"
)

// Runtimes.
const (
	runtimeContainerd = "containerd"
	runtimeCRIO       = "cri-o"
)

// providerFlags are those of both commands.
type providerFlags struct{ runtime, root, config, socket, cri string }

func (p *providerFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.runtime, "runtime", runtimeContainerd, "container runtime `NAME`: containerd or cri-o")
	f.StringVar(&p.root, "root", "/", "`FOLDER` with the root of the host, when this runs in a container")
	f.StringVar(&p.config, "config", defaultConfig, "configuration `FILE` of the agent, for the socket of the key provider")
	f.StringVar(&p.socket, "socket", "", "`PATH` of that socket instead, as the runtime sees it")
	f.StringVar(&p.cri, "cri", "", "in a container: `PATH` of the CRI socket of containerd, which is asked for its version; its configuration is read from its files")
}

// where returns the socket that the runtime has to ask.
func (p *providerFlags) where() (string, error) {
	if p.runtime != runtimeContainerd && p.runtime != runtimeCRIO {
		return "", fmt.Errorf("--runtime %q: want %s or %s: %w", p.runtime, runtimeContainerd, runtimeCRIO, errUsage)
	}
	if p.socket != "" {
		return p.socket, nil
	}
	cfg, err := agent.ReadConfig(p.config)
	if err != nil {
		return "", err
	}
	if cfg.ImageProvider.Socket == "" {
		return "", fmt.Errorf("%s sets no imageProvider.socket: the agent serves no image keys (use %s)", p.config, keyprovider.DefaultSocket)
	}
	return cfg.ImageProvider.Socket, nil
}

func imageProviderCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "image-provider", Short: "How the container runtime gets the keys of encrypted images", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(providerInstallCmd(), providerCheckCmd(), providerWatchCmd())
	return cmd
}

func providerInstallCmd() *cobra.Command {
	var p providerFlags
	var from decoderFlags
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Write the configuration with which the container runtime decrypts images, and say what is left to do",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			socket, err := p.where()
			if err != nil {
				return err
			}
			wrote, next, err := install(cmd.Context(), &p, &from, socket)
			for _, file := range wrote {
				fmt.Fprintln(cmd.OutOrStdout(), "wrote", file)
			}
			if err != nil {
				return err
			}
			if next != "" {
				fmt.Fprintln(cmd.OutOrStdout(), next)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "then restart %s, and see `trust-agent image-provider check`\n", p.runtime)
			return nil
		},
	}
	p.add(cmd)
	from.add(cmd)
	return cmd
}

// decoderFlags say where the decoder comes from and goes to.
type decoderFlags struct{ bin, file string }

func (d *decoderFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&d.bin, "bin", "/usr/local/bin", "`FOLDER` for the decoder")
	cmd.Flags().StringVar(&d.file, "decoder", "", "`FILE` of the decoder (default: ctd-decoder beside this program)")
}

func (d *decoderFlags) source() (string, error) {
	if d.file != "" {
		return d.file, nil
	}
	self, err := os.Executable()
	return filepath.Join(filepath.Dir(self), decoder), err
}

const decoder = "ctd-decoder"

// install writes what is not there yet, and returns what it wrote and what is left to a person.
func install(ctx context.Context, p *providerFlags, d *decoderFlags, socket string) (wrote []string, next string, err error) {
	i := &runtimeconf.Install{Root: p.root, Socket: socket, Decoder: filepath.Join(d.bin, decoder)}
	if p.runtime == runtimeCRIO {
		err = i.CRIO() // it decrypts by itself
		return i.Wrote, "run systemctl daemon-reload", err
	}
	from, err := d.source()
	if err != nil {
		return nil, "", err
	}
	v, err := p.version(ctx)
	if err == nil {
		err = i.Program(from)
	}
	if err != nil {
		return i.Wrote, "", err
	}
	next, err = i.Containerd(v)
	return i.Wrote, next, err
}

// version asks containerd for its version.
func (p *providerFlags) version(ctx context.Context) (runtimeconf.Version, error) {
	if p.cri == "" {
		text, err := runContainerd(ctx, p.root, "--version")
		if err != nil {
			return runtimeconf.Version{}, err
		}
		return runtimeconf.ParseVersion(string(text))
	}
	ctx, cancel := context.WithTimeout(ctx, criTime)
	defer cancel()
	s, err := cri.Open(p.cri)
	if err != nil {
		return runtimeconf.Version{}, err
	}
	defer s.Close() //nolint:errcheck // nothing was written
	name, version, err := s.Version(ctx)
	if err != nil {
		return runtimeconf.Version{}, err
	}
	if name != runtimeContainerd {
		return runtimeconf.Version{}, fmt.Errorf("%s is the socket of %.40q, not of containerd", p.cri, name)
	}
	return runtimeconf.ParseVersion(version)
}

// runContainerd runs the host's containerd.
func runContainerd(ctx context.Context, root string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	program := "containerd"
	for _, dir := range []string{"/usr/local/bin", "/usr/bin", "/usr/sbin"} {
		if _, err := os.Stat(filepath.Join(root, dir, program)); err == nil {
			program = filepath.Join(dir, program)
			break
		}
	}
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // the host's containerd
	if root != "/" {
		cmd.SysProcAttr, cmd.Dir = &syscall.SysProcAttr{Chroot: root}, "/"
	}
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("ask containerd: %w", err)
	}
	return out, nil
}

func providerCheckCmd() *cobra.Command {
	var p providerFlags
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say what keeps the container runtime from decrypting images; exit code 1 when something does",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			socket, err := p.where()
			if err != nil {
				return err
			}
			problems, err := check(cmd.Context(), &p, socket)
			if err != nil {
				return err
			}
			return tell(cmd.OutOrStdout(), p.runtime, problems)
		},
	}
	p.add(cmd)
	return cmd
}

// criTime bounds a question to the runtime.
const criTime = 10 * time.Second

func tell(w io.Writer, runtime string, problems []string) error {
	if len(problems) == 0 {
		fmt.Fprintf(w, "%s can decrypt images by this worker's trust agent (if it was restarted since it was configured)\n", runtime)
		return nil
	}
	for _, problem := range problems {
		fmt.Fprintln(w, "-", problem)
	}
	return fmt.Errorf("%s cannot decrypt all images yet: see above", runtime)
}

func check(ctx context.Context, p *providerFlags, socket string) ([]string, error) {
	h := runtimeconf.Host{
		Socket: socket,
		Read:   func(file string) ([]byte, error) { return os.ReadFile(filepath.Join(p.root, file)) },
		Look:   func(program string) error { return lookProgram(p.root, program) },
	}
	var problems []string
	if err := checkSocket(ctx, filepath.Join(p.root, socket)); err != nil {
		problems = append(problems, err.Error())
	}
	if p.runtime == runtimeCRIO {
		return append(problems, runtimeconf.CheckCRIO(h)...), nil
	}
	v, err := p.version(ctx)
	if err != nil {
		return nil, err
	}
	if p.cri != "" {
		info, err := os.Stat(p.cri) // made anew when the runtime starts
		if err != nil {
			return nil, err
		}
		found, err := runtimeconf.CheckFiles(v, p.root, info.ModTime(), h)
		return append(problems, found...), err
	}
	dump, err := runContainerd(ctx, p.root, "config", "dump")
	if err != nil {
		return nil, err
	}
	found, err := runtimeconf.CheckContainerd(v, dump, h)
	return append(problems, found...), err
}

// lookProgram finds a program as a service of the host would.
func lookProgram(root, program string) error {
	dirs := []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
	if filepath.IsAbs(program) {
		dirs = []string{"/"}
	}
	for _, dir := range dirs {
		if info, err := os.Stat(filepath.Join(root, dir, program)); err == nil && info.Mode()&0o111 != 0 {
			return nil
		}
	}
	return errors.New("no program of that name: run `trust-agent image-provider install`")
}

// checkSocket looks whether the agent serves, and for nobody but root.
func checkSocket(ctx context.Context, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("the key provider's socket: %w: does trust-agent run, with imageProvider.socket set?", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("the key provider's socket %s has mode %v, want 0600", path, info.Mode().Perm())
	}
	c, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("the key provider does not answer: %w: does trust-agent run?", err)
	}
	return c.Close()
}
