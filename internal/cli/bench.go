package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/fleet"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
)

func (a *App) benchCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "Measure AIAS on this machine"}
	cmd.AddCommand(a.benchFleetCmd())
	return cmd
}

func (a *App) benchFleetCmd() *cobra.Command {
	var o fleet.Options
	var server string
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "Let thousands of simulated workers attest, and measure what that costs AIAS",
		Long: `Starts an AIAS of its own on a loopback port, enrols simulated workers and has them attest for a while over HTTPS, each with a client
certificate of its own. Their TPMs are software, their boot is one that a real machine measured. Nothing stays behind.

A real fleet attests once a minute, and AIAS closes a connection that is idle for 10 s. What 2000 such workers take:
touchstone bench fleet --nodes 2000 --rate 33 --idle 10s --duration 75s

With --server a running AIAS on this machine is taken (its limits on single nodes hold, and its policy and references must know the
captured boot); the nodes are removed from it afterwards. Exit code 0: every attestation was answered, and trusted.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := o.Check()
			if err != nil {
				return usage(cmd, err)
			}
			if server != "" {
				o.Operator, err = a.bundleFor(server)
			} else {
				o.Program, err = findAIAS(o.Program)
			}
			if err != nil {
				return err
			}
			return a.benchFleet(cmd, o)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Nodes, "nodes", 2000, "simulated workers")
	f.DurationVar(&o.Duration, "duration", 20*time.Second, "length of the measured part")
	f.IntVar(&o.Connections, "connections", -1, "workers that keep their connection open; the others open one for each attestation (default all)")
	f.DurationVar(&o.Idle, "idle", 10*time.Minute, "AIAS closes connections after so long without a request; its own default is 10s")
	f.IntVar(&o.InFlight, "in-flight", 32, "attestations under way at a time")
	f.Float64Var(&o.Rate, "rate", 0, "attestations a second at most (default as fast as it goes)")
	f.IntVar(&o.NewEntries, "new-entries", 0, "new known IMA entries that each attestation brings")
	f.BoolVar(&o.Full, "full", false, "each attestation brings the whole logs")
	f.BoolVar(&o.Tags, "tags", false, "each worker has asset tags, which its TPM certifies with each attestation")
	f.BoolVar(&o.Warm, "warm", true, "one round of all workers before the measured part")
	f.StringVar(&server, "server", "", "https `URL` of a running AIAS on this machine, instead of one of its own; needs --operator")
	f.StringVar(&o.Program, "aias", "", "`PROGRAM` to start as AIAS (default: aias beside this program, else of the search path)")
	return cmd
}

func (a *App) benchFleet(cmd *cobra.Command, o fleet.Options) error {
	p, part := a.newProgress(""), ""
	o.Progress = func(name string, done, total int64) {
		if name != part {
			p.title, p.last, part = name, time.Time{}, name
		}
		p.update(done, total)
	}
	r, err := fleet.Run(cmd.Context(), o)
	p.end()
	if cmd.Context().Err() != nil {
		return &exitError{code: ExitNotTrusted, err: errors.Join(errors.New("interrupted; everything was cleared away"), err)}
	}
	if err != nil {
		return err
	}
	if err := a.show(r, func(w io.Writer) { drawFleet(w, r) }); err != nil {
		return err
	}
	if !r.OK {
		return &exitError{code: ExitNotTrusted, err: errors.New("not every attestation was answered and trusted")}
	}
	return nil
}

// bundleFor is the operator's bundle with the address of server.
func (a *App) bundleFor(server string) (*protocol.OperatorBundle, error) {
	file := a.operatorFile
	if file == "" {
		file = os.Getenv(operator.EnvBundle)
	}
	if file == "" {
		return nil, errors.New("--server needs the operator bundle of that AIAS: give --operator FILE or set $" + operator.EnvBundle)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the operator bundle: %w", err)
	}
	b := &protocol.OperatorBundle{}
	if err := json.Unmarshal(data, b); err != nil {
		return nil, fmt.Errorf("operator bundle %s: %w", file, err)
	}
	b.Server = server
	return b, nil
}

// findAIAS looks for the program beside this one, then in the search path.
func findAIAS(name string) (string, error) {
	if name != "" {
		return name, nil
	}
	if own, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(own), "aias")
		if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() {
			return beside, nil
		}
	}
	found, err := exec.LookPath("aias")
	if err != nil {
		return "", errors.New("there is no aias beside this program or in the search path: name it with --aias, or build it with `make build`")
	}
	return found, nil
}

// drawFleet writes a report for people.
func drawFleet(w io.Writer, r *fleet.Report) {
	line := func(label, format string, args ...any) {
		fmt.Fprintf(w, "  %-14s %s\n", label, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(w, "%d workers, %d connections kept, %d attestations under way at a time\n", r.Nodes, r.Connections, r.InFlight)
	line("attestations", "%.0f a second: %d in %.1f s, %d trusted", r.Steady.PerSecond, r.Attestations, r.Steady.Seconds, r.Trusted)
	for _, k := range slices.Sorted(maps.Keys(r.Errors)) {
		line("", "%d failed: %s", r.Errors[k], k)
	}
	if r.Tags {
		line("asset tags", "proven by %d of %d workers", r.Proven, r.Nodes)
	}
	l := r.Latency
	line("latency", "median %.1f ms, 95%% %.1f ms, 99%% %.1f ms, longest %.1f ms", l.P50, l.P95, l.P99, l.Max)
	if r.Opened > 0 {
		line("connections", "%d opened, %d of them resumed a session", r.Opened, r.Resumed)
	}
	if r.Steady.AIASMicros > 0 {
		line("CPU", "AIAS %.0f us an attestation (%.2f cores), generator %.0f us (%.2f cores)",
			r.Steady.AIASMicros, r.Steady.AIASCores, r.Steady.GeneratorMicros, r.Steady.GeneratorCores)
	}
	e := r.Enrolment
	line("enrolment", "%.0f a second with the first, whole attestation; AIAS %.0f us of CPU each", e.PerSecond, e.AIASMicros)
	m := r.Memory
	line("memory", "AIAS in use %s with 64 workers, %s with all, %s with connections, %s at the end",
		mebi(m.Few.Live), mebi(m.Enrolled.Live), mebi(m.Connected.Live), mebi(m.After.Live))
	if m.Enrolled.RSS > 0 {
		line("", "resident %s, %s, %s, %s", mebi(m.Few.RSS), mebi(m.Enrolled.RSS), mebi(m.Connected.RSS), mebi(m.After.RSS))
	}
	if m.PerNode != 0 {
		line("", "%.1f KiB a worker, %.1f KiB more with its connection open; at the end %.1f KiB a worker in all",
			float64(m.PerNode)/1024, float64(m.PerConnection)/1024, float64(m.PerNodeAfter)/1024)
	}
}

func mebi(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
