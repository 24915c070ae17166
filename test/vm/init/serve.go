package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"touchstone.dev/touchstone/test/vm/control"
)

// serve dials the host and answers its requests until it hangs up.
func (m *machine) serve(job *control.Job) error {
	if job.Control == "" {
		return errors.New("the job names no control address")
	}
	conn, err := dial(job.Control, 2*time.Minute)
	if err != nil {
		return err
	}
	defer conn.Close()
	in, out := json.NewDecoder(conn), json.NewEncoder(conn)
	m.hello.Token, m.hello.Uptime = job.Token, uptime()
	if err := out.Encode(m.hello); err != nil {
		return err
	}
	for {
		var req control.Request
		if err := in.Decode(&req); err != nil {
			return err
		}
		rep := act(&req)
		if err := out.Encode(rep); err != nil {
			return err
		}
		say("%s %s %s: %s", req.Op, req.Path, strings.Join(req.Args, " "), outcome(rep))
		switch req.Op {
		case control.OpKexec:
			if rep.Error == "" {
				hangUp(conn)
				halt(unix.LINUX_REBOOT_CMD_KEXEC)
			}
		case control.OpReboot:
			hangUp(conn)
			halt(unix.LINUX_REBOOT_CMD_RESTART)
		case control.OpPowerOff:
			hangUp(conn)
			halt(unix.LINUX_REBOOT_CMD_POWER_OFF)
		}
	}
}

// hangUp waits until the host has read the last reply and closed the connection: a reply on its way would end with the machine.
func hangUp(conn net.Conn) {
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, _ = conn.Read(make([]byte, 1))
}

// dial tries until the network carries.
func dial(addr string, limit time.Duration) (net.Conn, error) {
	for end := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
		if err == nil || time.Now().After(end) {
			return conn, err
		}
	}
}

func outcome(r *control.Reply) string {
	switch {
	case r.Error != "":
		return r.Error
	case r.Exit != 0:
		return fmt.Sprintf("exit %d", r.Exit)
	}
	return "ok"
}

// act does what req asks for.
func act(req *control.Request) *control.Reply {
	var rep control.Reply
	var err error
	switch req.Op {
	case control.OpExec:
		rep.Data, rep.Exit, err = run(req.Path, req.Args)
	case control.OpModule:
		err = loadModule(req.Path, strings.Join(req.Args, " "))
	case control.OpWrite:
		err = writeFile(req.Path, req.Data, req.Mode)
	case control.OpRead:
		rep.Data, err = os.ReadFile(req.Path)
	case control.OpGlob:
		rep.Names, err = filepath.Glob(req.Path)
	case control.OpPack:
		rep.Files, err = pack(req.Path)
	case control.OpKexec:
		err = loadKexec(req.Path, req.Args)
	case control.OpReboot, control.OpPowerOff:
	default:
		err = fmt.Errorf("unknown operation %q", req.Op)
	}
	if err != nil {
		rep.Error = err.Error()
	}
	return &rep
}

// run runs a program to its end; its exit status is no error.
func run(path string, args []string) ([]byte, int, error) {
	out, err := exec.Command(path, args...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out, exit.ExitCode(), nil
	}
	return out, 0, err
}

// loadKexec loads a kernel for LINUX_REBOOT_CMD_KEXEC; under lockdown it must be signed.
func loadKexec(kernel string, args []string) error {
	if len(args) != 2 {
		return errors.New("want an initrd and a command line")
	}
	k, err := os.Open(kernel)
	if err != nil {
		return err
	}
	defer k.Close()
	i, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer i.Close()
	if err := unix.KexecFileLoad(int(k.Fd()), int(i.Fd()), args[1], 0); err != nil {
		return fmt.Errorf("load %s for kexec: %w", kernel, err)
	}
	return nil
}

// pack reads every regular file below dir; the keys are absolute paths.
func pack(dir string) (map[string]control.File, error) {
	files := map[string]control.File{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		files[path] = control.File{Mode: uint32(info.Mode().Perm()), Data: data}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) && len(files) == 0 {
		return files, nil // the agent may not have made its folder yet
	}
	return files, err
}
