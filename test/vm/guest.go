package vm

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"touchstone.dev/touchstone/test/vm/control"
)

// actionTimeout bounds one action in a guest when the context has no deadline.
const actionTimeout = 3 * time.Minute

// ErrAction wraps what a guest says when an action fails inside it, such as a kernel that refuses a module.
var ErrAction = errors.New("the machine answers")

// Guest is the way into a running machine. Its methods may be called from several goroutines; the machine does one action at a time.
type Guest struct {
	Hello control.Hello // what /init said about the boot

	mu   sync.Mutex
	conn net.Conn
	in   *json.Decoder
	out  *json.Encoder
}

// listener waits for the /init of one boot.
type listener struct {
	net   net.Listener
	token string
	guest chan *Guest
}

func listen(token string) (*listener, error) {
	n, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &listener{net: n, token: token, guest: make(chan *Guest, 1)}
	go l.accept()
	return l, nil
}

// guestAddress is the listener's address as the guest dials it.
func (l *listener) guestAddress() string {
	return net.JoinHostPort(HostAddress, strconv.Itoa(l.net.Addr().(*net.TCPAddr).Port))
}

func (l *listener) close() { l.net.Close() }

// accept hands on the first connection that says hello with the right token; others are closed.
func (l *listener) accept() {
	for {
		conn, err := l.net.Accept()
		if err != nil {
			return
		}
		g := &Guest{conn: conn, in: json.NewDecoder(conn), out: json.NewEncoder(conn)}
		_ = conn.SetDeadline(time.Now().Add(actionTimeout))
		if err := g.in.Decode(&g.Hello); err != nil || g.Hello.Token != l.token {
			conn.Close()
			continue
		}
		l.guest <- g
		return
	}
}

func (g *Guest) close() { g.conn.Close() }

// do sends one request and waits for its reply.
func (g *Guest) do(ctx context.Context, req *control.Request) (*control.Reply, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(actionTimeout)
	}
	if err := g.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if err := g.out.Encode(req); err != nil {
		return nil, fmt.Errorf("%s %s: %w", req.Op, req.Path, err)
	}
	var rep control.Reply
	if err := g.in.Decode(&rep); err != nil {
		return nil, fmt.Errorf("%s %s: %w", req.Op, req.Path, err)
	}
	if rep.Error != "" {
		return &rep, fmt.Errorf("%s %s: %w: %s", req.Op, req.Path, ErrAction, rep.Error)
	}
	return &rep, nil
}

// Exec runs a program to its end and returns its output (standard output and error together) and exit status.
// /bin/busybox is there on every machine.
func (g *Guest) Exec(ctx context.Context, program string, args ...string) (output []byte, exit int, err error) {
	rep, err := g.do(ctx, &control.Request{Op: control.OpExec, Path: program, Args: args})
	if err != nil {
		return nil, 0, err
	}
	return rep.Data, rep.Exit, nil
}

// WriteFile writes a file and the folders that it needs.
func (g *Guest) WriteFile(ctx context.Context, name string, data []byte, mode uint32) error {
	_, err := g.do(ctx, &control.Request{Op: control.OpWrite, Path: name, Data: data, Mode: mode})
	return err
}

// ReadFile reads a file, also one of sysfs, procfs or securityfs.
func (g *Guest) ReadFile(ctx context.Context, name string) ([]byte, error) {
	rep, err := g.do(ctx, &control.Request{Op: control.OpRead, Path: name})
	if err != nil {
		return nil, err
	}
	return rep.Data, nil
}

// Glob lists the paths that match a pattern of path/filepath.
func (g *Guest) Glob(ctx context.Context, pattern string) ([]string, error) {
	rep, err := g.do(ctx, &control.Request{Op: control.OpGlob, Path: pattern})
	if err != nil {
		return nil, err
	}
	return rep.Names, nil
}

// Pack reads all files below a folder, by absolute path. A folder that is not there is empty.
func (g *Guest) Pack(ctx context.Context, dir string) (map[string]File, error) {
	rep, err := g.do(ctx, &control.Request{Op: control.OpPack, Path: dir})
	if err != nil {
		return nil, err
	}
	return rep.Files, nil
}

// LoadModule writes a module to a file called NAME.ko and asks the kernel to load it. An error that wraps ErrAction is the kernel's answer.
func (g *Guest) LoadModule(ctx context.Context, name string, data []byte) error {
	file := path.Join("/run/modules", name+".ko")
	if err := g.WriteFile(ctx, file, data, 0o644); err != nil {
		return err
	}
	_, err := g.do(ctx, &control.Request{Op: control.OpModule, Path: file})
	return err
}

// RunUnknown runs a program that no package and no reference knows: busybox with a changed end, at the given path, as
// the applet of that path's last element ("/run/echo").
func (g *Guest) RunUnknown(ctx context.Context, program string, args ...string) (output []byte, exit int, err error) {
	b, err := g.ReadFile(ctx, "/bin/busybox")
	if err != nil {
		return nil, 0, err
	}
	if err := g.WriteFile(ctx, program, append(b, "not from any package"...), 0o755); err != nil {
		return nil, 0, err
	}
	return g.Exec(ctx, program, args...)
}

// PCRs reads a bank of PCR values as the kernel's TPM driver shows them, 24 values by index.
func (g *Guest) PCRs(ctx context.Context, bank string) ([][]byte, error) {
	pcrs := make([][]byte, 24)
	for i := range pcrs {
		b, err := g.ReadFile(ctx, fmt.Sprintf("/sys/class/tpm/tpm0/pcr-%s/%d", bank, i))
		if err != nil {
			return nil, err
		}
		if pcrs[i], err = hex.DecodeString(strings.TrimSpace(string(b))); err != nil {
			return nil, fmt.Errorf("PCR %d: %w", i, err)
		}
	}
	return pcrs, nil
}
