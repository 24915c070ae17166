package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Roles of the test binary that make a worker: outer joins the control groups, inner is the first process in the namespaces.
const (
	roleOuter = "worker-outer"
	roleInner = "worker-inner"
)

// inside is what a worker's first process is told, in a file.
type inside struct {
	Hostname string
	// Binds are mounted over the worker's paths: target to source. A target that is not there, below /sys, is made.
	Binds map[string]string
	// Services is the folder of what runs: one file for each, see service.
	Services string
	InitPID  string // file for the number of the first process, as the machine sees it
	Cgroups  string // name of the worker's control groups
}

// service is a program that runs as long as its file is there, and is started again when it ends.
type service struct {
	Args []string
	Log  string
	Env  []string `json:",omitempty"`
}

const cgroupRoot = "/sys/fs/cgroup"

// unified reports whether the machine has cgroup v2 only.
func unified() bool {
	_, err := os.Stat(cgroupRoot + "/cgroup.controllers")
	return err == nil
}

// cgroupFolders returns the folders of the control groups of a name: one for each hierarchy.
func cgroupFolders(name string) ([]string, error) {
	if unified() {
		return []string{filepath.Join(cgroupRoot, name)}, nil
	}
	all, err := filepath.Glob(cgroupRoot + "/*")
	for i := range all {
		all[i] = filepath.Join(all[i], name)
	}
	return all, err
}

func readInside(file string) (*inside, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	in := &inside{}
	return in, json.Unmarshal(data, in)
}

// outer enters the control groups, so that a namespace begins there, and makes the worker's namespaces. The kernel kills the worker when
// this process ends.
func outer(args []string) error {
	in, err := readInside(args[0])
	if err != nil {
		return err
	}
	folders, err := cgroupFolders(in.Cgroups)
	if err != nil {
		return err
	}
	for _, f := range folders {
		if err := enterCgroup(f); err != nil {
			return err
		}
	}
	cmd := exec.Command("/proc/self/exe", roleArgument, roleInner, args[0]) //nolint:noctx // ends with the worker
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWPID | unix.CLONE_NEWCGROUP,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := os.WriteFile(in.InitPID, []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		return err
	}
	return cmd.Wait()
}

func enterCgroup(folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // v1: empty ones take no process
		data, err := os.ReadFile(filepath.Join(filepath.Dir(folder), file))
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, file), data, 0o644)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return os.WriteFile(filepath.Join(folder, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o644)
}

// inner is the first process of a worker.
func inner(args []string) error {
	in, err := readInside(args[0])
	if err != nil {
		return err
	}
	if err := syscall.Sethostname([]byte(in.Hostname)); err != nil {
		return err
	}
	for _, step := range []func() error{mountOwn, mountCgroups, in.bind} {
		if err := step(); err != nil {
			return err
		}
	}
	// A kubelet needs mounts that spread.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share the mounts: %w", err)
	}
	return supervise(in.Services)
}

// mountOwn gives the worker kernel file systems of its own, and an empty /run, as after a boot.
func mountOwn() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("part from the mounts of the machine: %w", err)
	}
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"tmpfs", "/run"}} {
		if err := syscall.Mount(m[0], m[1], m[0], 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	return nil
}

// mountCgroups mounts the hierarchies that the machine has; they begin at the worker's own groups.
func mountCgroups() error {
	if data, err := os.ReadFile("/proc/self/mountinfo"); err == nil && !strings.Contains(string(data), " - cgroup ") {
		return mountUnified()
	}
	data, err := os.ReadFile("/proc/self/cgroup") // lines: number, controllers, path
	if err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", cgroupRoot, "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", cgroupRoot, err)
	}
	for line := range strings.Lines(string(data)) {
		controllers := strings.Split(line, ":")[1]
		name, kind, options := controllers, "cgroup", controllers
		switch {
		case controllers == "":
			name, kind, options = "unified", "cgroup2", ""
		case strings.HasPrefix(controllers, "name="):
			name, options = strings.TrimPrefix(controllers, "name="), "none,"+controllers
		}
		at := filepath.Join(cgroupRoot, name)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount("cgroup", at, kind, 0, options); err != nil {
			return fmt.Errorf("mount %s: %w", at, err)
		}
	}
	return nil
}

// mountUnified is mountCgroups on a machine with cgroup v2 only: controllers are handed on by groups that hold no process.
func mountUnified() error {
	if err := syscall.Mount("cgroup2", cgroupRoot, "cgroup2", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", cgroupRoot, err)
	}
	if err := os.MkdirAll(cgroupRoot+"/init", 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(cgroupRoot+"/init/cgroup.procs", []byte("1"), 0o644); err != nil {
		return err
	}
	data, err := os.ReadFile(cgroupRoot + "/cgroup.controllers")
	for _, controller := range strings.Fields(string(data)) {
		err = errors.Join(err, os.WriteFile(cgroupRoot+"/cgroup.subtree_control", []byte("+"+controller), 0o644))
	}
	return err
}

// supervise runs the services whose files are in the folder, for ever, and reaps all children, as a first process must.
func supervise(folder string) error {
	running := map[int]string{} // by process number
	again := map[string]time.Time{}
	for ; ; time.Sleep(50 * time.Millisecond) {
		for {
			var status syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
			if pid <= 0 || err != nil {
				break
			}
			if name, ours := running[pid]; ours {
				delete(running, pid)
				again[name] = time.Now().Add(time.Second)
				_ = os.Remove(filepath.Join(folder, name+".pid"))
			}
		}
		wanted, err := filepath.Glob(folder + "/*.json")
		if err != nil {
			return err
		}
		want := map[string]bool{}
		for _, file := range wanted {
			want[strings.TrimSuffix(filepath.Base(file), ".json")] = true
		}
		for pid, name := range running {
			if !want[name] {
				_ = syscall.Kill(pid, syscall.SIGTERM)
			}
			delete(want, name)
		}
		for name := range want {
			if time.Now().Before(again[name]) {
				continue
			}
			pid, err := startService(folder, name)
			if err != nil {
				os.Stderr.WriteString(name + ": " + err.Error() + "\n")
				again[name] = time.Now().Add(time.Second)
				continue
			}
			running[pid] = name
		}
	}
}

func startService(folder, name string) (int, error) {
	data, err := os.ReadFile(filepath.Join(folder, name+".json"))
	if err != nil {
		return 0, err
	}
	var s service
	if err := json.Unmarshal(data, &s); err != nil {
		return 0, err
	}
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	program, err := exec.LookPath(s.Args[0])
	if err != nil {
		return 0, err
	}
	fd := log.Fd()
	pid, err := syscall.ForkExec(program, s.Args, &syscall.ProcAttr{
		Dir: "/", Env: append(os.Environ(), s.Env...), Files: []uintptr{0, fd, fd}, Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return 0, err
	}
	return pid, os.WriteFile(filepath.Join(folder, name+".pid"), []byte(strconv.Itoa(pid)), 0o600)
}
