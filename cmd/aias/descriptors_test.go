package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
)

// limited is a command that may have so many files open.
func limited(t *testing.T, files int, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", append([]string{"-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, files), exe}, args...)...)
	cmd.Env = append(os.Environ(), asAIAS+"=1")
	return cmd
}

// TestTooFewDescriptors: AIAS does not begin what it could not go on with.
func TestTooFewDescriptors(t *testing.T) {
	config, _ := setUp(t)
	out, err := limited(t, 200, "serve", "--config", config).CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("LimitNOFILE")) {
		t.Errorf("aias serve with 200 files: got %v\n%s, want an error that says what to raise", err, out)
	}
}

// TestFloodOfConnections: more connections than there are file descriptors end neither the service nor the ledger.
func TestFloodOfConnections(t *testing.T) {
	config, data := setUp(t)
	cmd := limited(t, 400, "serve", "--config", config)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	bundle := filepath.Join(data, "operator.json")
	var c *operator.Client
	ready := func(what string) {
		t.Helper()
		var err error
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			if c == nil {
				if c, err = operator.Open(bundle); err != nil {
					continue
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			_, err = c.CreateToken(ctx, protocol.TokenRequest{Node: "worker-1"})
			cancel()
			if err == nil {
				return
			}
			select {
			case err := <-ended:
				ended <- err
				t.Fatalf("%s: AIAS ended: %v\n%s", what, err, log.String())
			default:
			}
		}
		t.Fatalf("%s: %v", what, err)
	}
	ready("start")
	address := strings.TrimPrefix(c.Server(), "https://")
	var held []net.Conn
	defer func() {
		for _, conn := range held {
			_ = conn.Close()
		}
	}()
	for range 1000 {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			break
		}
		held = append(held, conn)
	}
	if len(held) < 500 {
		t.Fatalf("%d connections could be made, want more than AIAS may have files", len(held))
	}
	time.Sleep(time.Second) // ten checkpoints
	for _, conn := range held {
		_ = conn.Close()
	}
	ready("after the flood")
	if out := log.String(); !strings.Contains(out, "fewer connections than") || strings.Contains(out, "too many open files") {
		t.Errorf("log: want a warning at the start, and no lack of files:\n%s", out)
	}
}
