package swtpm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	maxSocketPath = 100 // bytes; sockaddr_un has 108, and swtpm adds ".ctrl"
	startTimeout  = 15 * time.Second
	stopTimeout   = 5 * time.Second
	pollInterval  = 5 * time.Millisecond
)

// Process is a running software TPM. Its methods must not be called at the same time.
type Process struct {
	options Options
	life    context.Context // of Start; the process ends with it
	sockets string          // folder of the sockets: Dir, or a short one of our own
	cmd     *exec.Cmd
	output  *tail
	done    chan struct{} // closed when the process has ended
}

// Start starts the TPM in o.Dir and makes it first when it is new. The TPM has gone through TPM2_Startup(CLEAR) when Start
// returns. It runs until Stop, or until ctx is done.
func Start(ctx context.Context, o Options) (*Process, error) {
	if err := Manufacture(ctx, o); err != nil {
		return nil, err
	}
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	p := &Process{options: o, life: ctx, sockets: o.Dir}
	if len(p.socket()) > maxSocketPath {
		if p.sockets, err = os.MkdirTemp("", "swtpm"); err != nil {
			return nil, fmt.Errorf("start software TPM: %w", err)
		}
	}
	if err := p.start(ctx); err != nil {
		_ = p.Stop()
		return nil, err
	}
	return p, nil
}

// Address returns the address of the TPM for device.Open: "unix:" and the path of its socket.
func (p *Process) Address() string { return "unix:" + p.socket() }

// PID returns the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

func (p *Process) socket() string { return filepath.Join(p.sockets, "s") }

// Reboot shuts the TPM down in an orderly way and starts it again, as when its machine reboots: PCRs are reset, resetCount
// grows by one, saved contexts are void. ctx limits the waiting only.
func (p *Process) Reboot(ctx context.Context) error {
	shutdown := []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x45, 0, 0} // TPM2_Shutdown(CLEAR)
	if err := p.command(ctx, shutdown); err != nil {
		return fmt.Errorf("shut software TPM down: %w", err)
	}
	if err := p.end(); err != nil {
		return err
	}
	return p.start(ctx)
}

// Stop ends the process. The state stays in the folder. A second call does nothing.
func (p *Process) Stop() error {
	err := p.end()
	if p.sockets != p.options.Dir {
		err = errors.Join(err, os.RemoveAll(p.sockets))
	}
	return err
}

func (p *Process) start(ctx context.Context) error {
	if err := errors.Join(removeIfThere(p.socket()), removeIfThere(p.socket()+".ctrl")); err != nil {
		return fmt.Errorf("start software TPM: %w", err)
	}
	p.output = new(tail)
	//nolint:gosec,contextcheck // our own arguments; the program lives as long as the Process, not as one call
	p.cmd = exec.CommandContext(p.life, "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+filepath.Join(p.options.Dir, "state"),
		"--server", "type=unixio,path="+p.socket(), "--ctrl", "type=unixio,path="+p.socket()+".ctrl",
		"--flags", "not-need-init,startup-clear")
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C on the terminal is ours to handle
	if err := p.cmd.Start(); err != nil {
		p.cmd = nil
		if errors.Is(err, exec.ErrNotFound) {
			err = ErrNotInstalled
		}
		return fmt.Errorf("start software TPM: %w", err)
	}
	cmd, done := p.cmd, make(chan struct{})
	p.done = done
	go func() {
		_ = cmd.Wait() // how it ended shows in what it printed
		close(done)
	}()
	return p.waitReady(ctx)
}

// waitReady asks the TPM for its random bytes until it answers.
func (p *Process) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	getRandom := []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 1}
	for {
		err := p.command(ctx, getRandom)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("start software TPM in %s: swtpm ended: %s", p.options.Dir, p.output)
		case <-ctx.Done():
			return fmt.Errorf("start software TPM in %s: %w: %w: %s", p.options.Dir, ctx.Err(), err, p.output)
		case <-time.After(pollInterval):
		}
	}
}

// command sends one command and checks that the TPM answers with success.
func (p *Process) command(ctx context.Context, command []byte) error {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", p.socket())
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is buffered
	if err := conn.SetDeadline(time.Now().Add(stopTimeout)); err != nil {
		return err
	}
	if _, err := conn.Write(command); err != nil {
		return err
	}
	header := make([]byte, 10)
	if _, err := io.ReadFull(conn, header); err != nil {
		return err
	}
	if code := binary.BigEndian.Uint32(header[6:]); code != 0 {
		return fmt.Errorf("TPM answers with code %#x", code)
	}
	return nil
}

func (p *Process) end() error {
	if p.cmd == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only where it has ended already
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	p.cmd = nil
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// tail keeps the end of what a process prints, for error messages.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - 2048; over > 0 {
		t.b = t.b[over:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.b))
}
