package kubetest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

const maxOutput = 2048 // bytes of a program's last words in an error

// Process is a running program that the kernel kills when the test binary ends, by whatever means. A nil one was never started, and has ended.
type Process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// Run starts a program in a folder ("" for the present one); what it prints is added to a log file. The kernel looks at the thread that made the child, not at
// the process: that thread therefore lives as long as the child.
func Run(dir, log, path string, arguments ...string) (*Process, error) {
	p := &Process{cmd: exec.Command(path, arguments...), log: log, done: make(chan struct{})} //nolint:noctx // it lives until Kill
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = out, out, dir
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
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return p, nil
}

// Running reports whether the program has not ended.
func (p *Process) Running() bool {
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

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// PID is its process identifier.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Stop asks the program to end, and kills it when it has not ended in time.
func (p *Process) Stop(patience time.Duration) {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-p.done:
	case <-time.After(patience):
		p.Kill()
	}
}

// Kill ends the program at once.
func (p *Process) Kill() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill() // it may have ended already
	<-p.done
}

// Output returns the last that the program printed.
func (p *Process) Output() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-maxOutput):])
}

// folder makes a folder that is removed by sweep, or when this process ends: a shell waits for the end of its input, which this process
// holds open.
func folder() (dir string, sweep func(), err error) {
	if dir, err = os.MkdirTemp("", "kubetest"); err != nil {
		return "", nil, err
	}
	cmd := exec.Command("sh", "-c", `cat; for i in 1 2 3 4 5; do rm -rf "$1" && exit; sleep 1; done`, "kubetest", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	input, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		return "", nil, err
	}
	return dir, func() {
		_ = input.Close()
		_ = cmd.Wait()
	}, nil
}

// freePorts returns ports of loopback that nobody listens on.
func freePorts(n int) ([]string, error) {
	var ports []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() //nolint:revive // all are held until the last one is known, so that they differ
		ports = append(ports, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	}
	return ports, nil
}
