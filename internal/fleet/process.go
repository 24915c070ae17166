package fleet

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of CPU time in /proc: USER_HZ is 100 on every architecture that Go knows.
const tick = 10 * time.Millisecond

// own puts a child into a process group of its own, so that Ctrl-C on the terminal reaches only us, who then end it in order; the kernel ends it when we are killed.
func own() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// cpuOf returns the CPU time that a process has used: utime and stime of proc_pid_stat(5).
func cpuOf(pid int) (time.Duration, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("read the CPU time of AIAS: %w", err)
	}
	return parseStat(data)
}

func parseStat(data []byte) (time.Duration, error) {
	// The second field is a file name in parentheses, which may hold anything.
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(fields) < 13 {
		return 0, errors.New("read the CPU time of AIAS: unknown form of /proc/PID/stat")
	}
	var sum int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the CPU time of AIAS: %w", err)
		}
		sum += n
	}
	return time.Duration(sum) * tick, nil
}

// rssOf returns the resident memory of a process in bytes: VmRSS of proc_pid_status(5).
func rssOf(pid int) (int64, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, fmt.Errorf("read the memory of AIAS: %w", err)
	}
	return parseStatus(data)
}

func parseStatus(data []byte) (int64, error) {
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		rest, ok := strings.CutPrefix(s.Text(), "VmRSS:")
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the memory of AIAS: %w", err)
		}
		return n << 10, nil
	}
	return 0, errors.New("read the memory of AIAS: no VmRSS in /proc/PID/status")
}

// ownCPU returns the CPU time of this process.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// spareFiles are files that a process has open besides its connections.
const spareFiles = 256

// checkFiles makes sure that this process, and AIAS as its child, can open so many connections. Go has raised the soft limit already.
func checkFiles(connections int) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	if need := uint64(connections) + spareFiles; l.Max < need { //nolint:gosec // not negative
		return fmt.Errorf("%d connections need %d open files, this shell allows %d: raise it (ulimit -Hn) or keep fewer open (--connections)", connections, need, l.Max)
	}
	return nil
}
