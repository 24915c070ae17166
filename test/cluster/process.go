package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	termTime = 3 * time.Second // an API server drains watches for up to a minute: nobody waits for that
	maxTail  = 2048            // bytes of a log in an error
)

// process is a running program.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
}

// launch starts a program, in a network namespace when one is named, that writes to a log file. The kernel kills it when this process ends,
// by whatever means: it looks at the thread that made the child, so that thread lives as long as the child.
func launch(netns, log, program string, args ...string) (*process, error) {
	name, all := program, args
	if netns != "" { // not "ip netns exec": that mounts another /sys
		name, all = "nsenter", append([]string{"--net=/run/netns/" + netns, program}, args...)
	}
	p := &process{cmd: exec.Command(name, all...), log: log, done: make(chan struct{})} //nolint:gosec,noctx // our own programs
	if err := os.MkdirAll(filepath.Dir(log), 0o700); err != nil {
		return nil, err
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		defer out.Close()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // how it ended stands in its log
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	return p, nil
}

// stop ends the program, in order if it can.
func (p *process) stop() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-p.done:
	case <-time.After(termTime):
		p.kill()
	}
}

// kill ends the program at once.
func (p *process) kill() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

// running reports whether the program has not ended.
func (p *process) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// tail returns the end of a log.
func tail(log string) string {
	b, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-maxTail):])
}

// until calls ready every now and then until it returns nil. It ends at the deadline, or when the program p (if any) has ended.
func until(ctx context.Context, what string, limit time.Duration, p *process, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var none <-chan struct{}
	if p != nil {
		none = p.done
	}
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-none:
			return fmt.Errorf("%s: the program ended: %s", what, tail(p.log))
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
