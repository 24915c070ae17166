package oscap

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Limits on what oscap says and writes.
const (
	maxSaid     = 1 << 20   // bytes of stdout and of stderr that are kept
	maxFile     = 512 << 20 // bytes of a file that it writes
	maxWarnings = 20
	maxText     = 400 // bytes of its words in an error
)

// ran is one run of oscap that ended by itself.
type ran struct {
	code   int
	maxRSS int64
	stdout clipped
	stderr clipped
}

// clipped keeps the beginning of what is written to it.
type clipped struct {
	bytes.Buffer
	lost bool
}

// Write takes all and keeps what fits.
func (c *clipped) Write(p []byte) (int, error) {
	n := min(len(p), maxSaid-c.Len())
	c.lost = c.lost || n < len(p)
	_, _ = c.Buffer.Write(p[:n])
	return len(p), nil
}

// oscap runs the program on the calling thread, whose namespaces and priority it inherits. line is called with each line of stdout.
func (w *work) oscap(ctx context.Context, line func(string), args ...string) (*ran, error) {
	r := &ran{}
	cmd := exec.CommandContext(ctx, w.program, args...) //nolint:gosec // the administrator's choice
	cmd.Dir = "/"
	cmd.Env = w.environment()
	cmd.Stderr = &r.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Chroot: w.chroot}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, failed(ToolError, "%v", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, failed(NoTool, "oscap cannot be started: %v", err)
	}
	w.limit(cmd.Process.Pid)
	read := bufio.NewReader(io.TeeReader(stdout, &r.stdout))
	for {
		s, err := read.ReadSlice('\n')
		if line != nil && len(s) > 0 {
			line(strings.TrimSpace(string(s)))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			break
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, failed(ToolError, "oscap: %v", err)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	r.code = cmd.ProcessState.ExitCode()
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		r.maxRSS = u.Maxrss << 10
	}
	if r.code < 0 {
		return nil, failed(ToolError, "oscap was ended (%s): out of memory, or it crashed: %s", cmd.ProcessState, r.words())
	}
	return r, nil
}

// environment is all that oscap inherits.
func (w *work) environment() []string {
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/", "APT_CONFIG=" + w.inside("apt.conf")}
	if w.Root != "" {
		env = append(env, "OSCAP_PROBE_ROOT="+w.inside("root"))
		if len(w.Environment) > 0 {
			env = append(env, "OSCAP_CONTAINER_VARS="+strings.Join(w.Environment, "\n"))
		}
	}
	if w.Target != "" {
		env = append(env, "OSCAP_EVALUATION_TARGET="+w.Target)
	}
	return env
}

// limit bounds the process. What it did before is a few page faults of its start.
func (w *work) limit(pid int) {
	memory := w.Memory
	if memory == 0 {
		memory = DefaultMemory
	}
	for what, n := range map[int]uint64{unix.RLIMIT_AS: memory, unix.RLIMIT_FSIZE: maxFile, unix.RLIMIT_CORE: 0} {
		_ = unix.Prlimit(pid, what, &unix.Rlimit{Cur: n, Max: n}, nil) // it ended already
	}
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("1000"), 0) // the first to go when memory is short
}

// words are oscap's own about what failed, in one line.
func (r *ran) words() string {
	s := strings.Join(strings.Fields(r.stderr.String()), " ")
	if s == "" {
		return "it said nothing"
	}
	return s[:min(len(s), maxText)]
}

// said returns an error when oscap said that something failed. It says so with a line that begins with "E: " or "OpenSCAP Error:", wherever
// on the line another thread left it.
func (r *ran) said(kind Kind) error {
	all := r.stderr.String()
	for _, mark := range []string{"E: ", "OpenSCAP Error"} {
		if strings.Contains(all, mark) {
			return failed(kind, "oscap said: %s", r.words())
		}
	}
	if r.stderr.lost {
		return failed(kind, "oscap said more than can be read: %s", r.words())
	}
	return nil
}

// warnings are the other lines of stderr.
func (r *ran) warnings() []string {
	var out []string
	for line := range strings.Lines(r.stderr.String()) {
		if line = strings.TrimSpace(line); line != "" && len(out) < maxWarnings {
			out = append(out, line[:min(len(line), maxText)])
		}
	}
	return out
}
