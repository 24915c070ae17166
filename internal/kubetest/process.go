package kubetest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
)

const maxOutput = 2048 // bytes of a program's last words in an error

// process is a running program.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
}

// run starts a program that the kernel kills when this process ends, by whatever means. The kernel looks at the thread that made the
// child, not at the process: that thread therefore lives as long as the child.
func run(dir, path string, arguments ...string) (*process, error) {
	p := &process{cmd: exec.Command(path, arguments...), log: filepath.Join(dir, filepath.Base(path)+".log"), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = log, log, dir
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		defer log.Close()
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

// kill ends the program; what it would still write down is of no use to anyone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	<-p.done
}

// output returns the last lines of the program.
func (p *process) output() string {
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
