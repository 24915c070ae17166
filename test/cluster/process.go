package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/kubetest"
)

const termTime = 3 * time.Second // an API server drains watches for up to a minute: nobody waits for that

// launch starts a program, in a network namespace when one is named, that writes to a log file.
func launch(netns, log, program string, args ...string) (*kubetest.Process, error) {
	if err := os.MkdirAll(filepath.Dir(log), 0o700); err != nil {
		return nil, err
	}
	if netns != "" { // not "ip netns exec": that mounts another /sys
		program, args = "nsenter", append([]string{"--net=/run/netns/" + netns, program}, args...)
	}
	return kubetest.Run("", log, program, args...)
}

// until calls ready every now and then until it returns nil. It ends at the deadline, or when the program p (if any) has ended.
func until(ctx context.Context, what string, limit time.Duration, p *kubetest.Process, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var none <-chan struct{}
	if p != nil {
		none = p.Done()
	}
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-none:
			return fmt.Errorf("%s: the program ended: %s", what, p.Output())
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %v: %w", what, limit, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// run runs a tool; its output appears in the error only.
func run(ctx context.Context, name string, args ...string) error {
	_, err := output(ctx, name, args...)
	return err
}

// output is run for a tool whose standard output is wanted.
func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // our own arguments
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("%s is not installed: %w", name, err)
		}
		return out, fmt.Errorf("%s %s: %w: %s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return out, nil
}
