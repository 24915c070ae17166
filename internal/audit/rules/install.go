package rules

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Control is what is set beside the rules.
type Control struct {
	// Backlog is how many records may wait for auditd. A record takes about a kilobyte of kernel memory.
	Backlog int
	// Wait is how long a process that causes an event waits when the backlog is full, in ticks of the kernel (100 to 1000 a second). 0:
	// not at all, the event is lost and counted. More: nothing is lost, but whoever can cause events quickly slows all others down. The
	// default waits shortly, and budgets (Governor) see to it that it seldom comes to that.
	Wait      int
	Immutable bool // lock the rules until the next boot
}

// DefaultControl holds a second of the most that auditd can write, and waits for a tenth to a full second.
var DefaultControl = Control{Backlog: 65536, Wait: 100}

// Where the rules for the next boot are.
const (
	BootFolder    = "/etc/audit/rules.d"
	bootFile      = "50-touchstone.rules"
	immutableFile = "99-touchstone-immutable.rules"
)

// ErrImmutable says that the kernel's rules are locked until the next boot.
var ErrImmutable = errors.New("the audit rules are locked (auditctl -e 2) until the next boot: what was written to " + BootFolder + " is loaded then")

// Install loads the shipped rules that are not loaded, takes out those with our keys that nobody intends, sets c, and writes the file for
// the next boot into folder ("": none). It goes on after a rule that fails; the report tells of it. Rules of others stay.
func Install(ctx context.Context, ctl Ctl, agent, folder string, c Control) (*Report, error) {
	intended, err := Shipped(agent)
	if err != nil {
		return nil, err
	}
	if folder != "" {
		if err := writeBoot(folder, agent, c); err != nil {
			return nil, err
		}
	}
	loaded, err := Loaded(ctx, ctl)
	if err != nil {
		return nil, err
	}
	if status, err := ctl(ctx, "-s"); err != nil {
		return nil, err
	} else if strings.HasPrefix(status, "enabled 2") {
		return Compare(intended, loaded), ErrImmutable
	}
	for _, args := range [][]string{{"-b", strconv.Itoa(c.Backlog)}, {"--backlog_wait_time", strconv.Itoa(c.Wait)}, {"-e", "1"}} {
		if _, err := ctl(ctx, args...); err != nil {
			return nil, fmt.Errorf("auditctl %s: %w", strings.Join(args, " "), err)
		}
	}
	failed := load(ctx, ctl, Compare(intended, loaded))
	if loaded, err = Loaded(ctx, ctl); err != nil {
		return nil, err
	}
	report := Compare(intended, loaded)
	for i, f := range report.Findings {
		if why, ok := failed[f.Rule.Meaning()]; ok && f.State == StateMissing {
			report.Findings[i].State, report.Findings[i].Why = StateFailed, why
		}
	}
	if c.Immutable {
		if len(report.Drift()) > 0 {
			return report, errors.New("not locked: some rules are not as meant, and could not be mended until the next boot")
		}
		if _, err := ctl(ctx, "-e", "2"); err != nil {
			return report, fmt.Errorf("locking the audit rules: %w", err)
		}
	}
	return report, nil
}

// lastFile has the rules that match nearly everything, and therefore stand last.
const lastFile = "90-programs.rules"

// load mends what a report found, and returns by meaning why rules could not be loaded.
func load(ctx context.Context, ctl Ctl, report *Report) map[string]string {
	failed := map[string]string{}
	try := func(r Rule, args []string) {
		if _, err := ctl(ctx, args...); err != nil {
			failed[r.Meaning()] = err.Error()
		}
	}
	// Exclusions go to the front of the list, the last one first, so that they keep their order.
	for _, f := range slices.Backward(report.Findings) {
		switch f.State {
		case StateExtra:
			try(f.Rule, f.Rule.without())
		case StateWrong:
			try(f.Rule, f.Rule.without())
			try(f.Rule, f.Rule.front())
		case StateMissing:
			if f.Rule.first() {
				try(f.Rule, f.Rule.front())
			}
		}
	}
	behind := false
	for _, f := range report.Findings {
		switch {
		case f.State == StateMissing && !f.Rule.first():
			try(f.Rule, f.Rule.Args)
			behind = behind || f.Rule.File != lastFile
		case f.State == StateLoaded && f.Rule.File == lastFile && behind: // what was added stands behind it, and it takes all
			try(f.Rule, f.Rule.without())
			try(f.Rule, f.Rule.Args)
		}
	}
	return failed
}

// front returns the arguments that put the rule before all others.
func (r Rule) front() []string {
	args := slices.Clone(r.Args)
	for i, a := range args {
		if a == "-a" {
			args[i] = "-A"
		}
	}
	return args
}

// writeBoot writes the file that augenrules takes at boot.
func writeBoot(folder, agent string, c Control) error {
	text, err := Boot(agent, c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o750); err != nil {
		return fmt.Errorf("rules for the next boot: %w", err)
	}
	if err := replace(filepath.Join(folder, bootFile), text); err != nil {
		return err
	}
	lock := filepath.Join(folder, immutableFile)
	if c.Immutable {
		return replace(lock, "# Written by `trust-agent audit rules install --immutable`. Nobody, root included, changes rules until the next boot.\n-e 2\n")
	}
	if err := os.Remove(lock); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("rules for the next boot: %w", err)
	}
	return nil
}

// replace writes a file so that the old or the new one is there.
func replace(name, text string) error {
	err := os.WriteFile(name+".new", []byte(text), 0o640) //nolint:gosec // as Debian's: readable for the group
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		return fmt.Errorf("rules for the next boot: %w", err)
	}
	return nil
}
