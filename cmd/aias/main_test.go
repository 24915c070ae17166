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

// asAIAS tells the test binary to be the command.
const asAIAS = "AIAS_TEST_RUN"

const policy = "apiVersion: touchstone.dev/v1alpha1\nkind: TrustPolicy\nmetadata: {name: test}\n"

func TestMain(m *testing.M) {
	if os.Getenv(asAIAS) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), asAIAS+"=1")
	return cmd
}

// setUp writes a configuration that listens on a free port, and returns its path and the data folder.
func setUp(t *testing.T) (config, data string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	dir := t.TempDir()
	config, data = filepath.Join(dir, "aias.yaml"), filepath.Join(dir, "data")
	text := fmt.Sprintf("listen: %q\naddress: %q\ndata: %q\npolicyFile: %q\n", address, address, data, filepath.Join(dir, "policy.yaml"))
	for path, b := range map[string]string{config: text, filepath.Join(dir, "policy.yaml"): policy} {
		if err := os.WriteFile(path, []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return config, data
}

// served starts `aias serve` and waits until it is ready.
func served(t *testing.T, config, data string) (*exec.Cmd, *operator.Client) {
	t.Helper()
	cmd := command(t, "serve", "--config", config)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var c *operator.Client
		if c, err = operator.Open(filepath.Join(data, "operator.json")); err != nil {
			continue
		}
		if err = c.Ready(context.Background()); err == nil {
			return cmd, c
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	t.Fatalf("aias serve is not ready: %v\n%s", err, log.String())
	return nil, nil
}

func TestServeKill9AndServeAgain(t *testing.T) {
	config, data := setUp(t)
	cmd, c := served(t, config, data)
	ctx := context.Background()
	before, err := c.CreateToken(ctx, protocol.TokenRequest{Node: "worker-1"})
	if err != nil {
		t.Fatal(err)
	}
	jwks, err := c.JWKS(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	_, c = served(t, config, data)
	tokens, err := c.Tokens(ctx)
	if err != nil || len(tokens) != 1 || tokens[0].ID != before.ID {
		t.Errorf("Tokens() after kill -9: got %+v, %v; want %s", tokens, err, before.ID)
	}
	if again, err := c.JWKS(ctx); err != nil || !bytes.Equal(again, jwks) {
		t.Errorf("JWKS() after kill -9: got %s, %v; want %s", again, err, jwks)
	}
}

// Two services on one data folder would overwrite what the other knows; commands beside the service are fine.
func TestServeTwice(t *testing.T) {
	config, data := setUp(t)
	served(t, config, data)
	out, err := command(t, "serve", "--config", config, "--listen", "127.0.0.1:0").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another `aias serve` works with") {
		t.Errorf("aias serve beside another: got %q, %v; want a refusal", out, err)
	}
	if out, err := command(t, "token", "create", "--config", config).CombinedOutput(); err != nil {
		t.Errorf("aias token create beside the service: %v\n%s", err, out)
	}
}

func TestTerminate(t *testing.T) {
	config, data := setUp(t)
	cmd, _ := served(t, config, data)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("aias serve after SIGINT: %v, want exit 0", err)
	}
}

// TestInitAtOnce: commands that find a new data folder at the same moment make one CA between them.
func TestInitAtOnce(t *testing.T) {
	config, _ := setUp(t)
	var cmds []*exec.Cmd
	outs := make([]bytes.Buffer, 4)
	for i := range outs {
		cmd := command(t, "init", "--config", config)
		cmd.Stdout, cmd.Stderr = &outs[i], &outs[i]
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, cmd)
	}
	hashes := map[string]bool{}
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Errorf("aias init: %v\n%s", err, outs[i].String())
			continue
		}
		_, hash, _ := strings.Cut(outs[i].String(), "--ca-hash ")
		hashes[strings.Fields(hash)[0]] = true
	}
	if len(hashes) != 1 {
		t.Errorf("aias init at once: got roots %v, want one", hashes)
	}
}

func TestInitAndToken(t *testing.T) {
	config, data := setUp(t)
	out, err := command(t, "init", "--config", config).Output()
	if err != nil || !strings.Contains(string(out), "--ca-hash sha256:") {
		t.Fatalf("aias init: got %q, %v", out, err)
	}
	info, err := os.Stat(filepath.Join(data, "operator.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("operator bundle: got %v, %v; want mode 0600", info, err)
	}
	token, err := command(t, "token", "create", "--config", config, "--node", "worker-1").Output()
	if err != nil || !strings.Contains(string(token), ".") {
		t.Errorf("aias token create: got %q, %v", token, err)
	}
	if again, err := command(t, "init", "--config", config).Output(); err != nil || !strings.Contains(string(again), "already") {
		t.Errorf("aias init again: got %q, %v", again, err)
	}
	bundle := filepath.Join(t.TempDir(), "op.json")
	added, err := command(t, "operator", "add", "second", "--config", config, "--out", bundle).CombinedOutput()
	if err != nil || !strings.HasPrefix(string(added), "operator bundle of second for https://") {
		t.Errorf("aias operator add: got %q, %v; want one line that names the bundle", added, err)
	}
	if _, err := operator.Open(bundle); err != nil {
		t.Errorf("second operator's bundle: %v", err)
	}
	// To standard output, as through `kubectl exec`: the bundle and nothing else.
	printed, err := command(t, "operator", "add", "third", "--config", config, "--address", "localhost:9443", "--out", "-").Output()
	if err != nil || !strings.Contains(string(printed), `"https://localhost:9443"`) {
		t.Errorf("aias operator add --out -: got %q, %v; want a bundle for localhost:9443", printed, err)
	}
	if err := os.WriteFile(bundle, printed, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := operator.Open(bundle); err != nil {
		t.Errorf("printed bundle: %v", err)
	}
}

// TestImportTang: a tangd is replaced while the service runs: its folder is imported, and what clevis bound to it is recovered at its address.
func TestImportTang(t *testing.T) {
	config, data := setUp(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, fmt.Sprintf("disks: {listen: %q, open: true}\n", address)...)
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	sh := func(in, script string, args ...string) (string, error) {
		cmd := exec.Command("bash", append([]string{"-c", script, "test"}, args...)...)
		cmd.Stdin = strings.NewReader(in)
		out, err := cmd.Output()
		return string(out), err
	}
	// The advertisement that tangd would serve, made by tangd itself; clevis takes it from a file.
	jwe, err := sh("secret", `/usr/libexec/tangd-keygen "$1" && printf 'GET /adv HTTP/1.1\r\n\r\n' | /usr/libexec/tangd "$1" 2>/dev/null | tail -n 1 >"$1/adv.json" &&
		clevis encrypt tang '{"url":"http://'"$2"'","adv":"'"$1/adv.json"'"}' && /usr/libexec/tangd-rotate-keys -d "$1" >&2`, dir, address)
	if err != nil {
		t.Fatalf("bind to a tangd: %v (scripts/need test installs tang-common and clevis)", err)
	}
	_, c := served(t, config, data)
	if got, err := sh(jwe, "clevis decrypt"); err == nil {
		t.Errorf("clevis decrypt before the import: got %q, want a refusal", got)
	}
	out, err := command(t, "disk", "import-tang", dir, "--config", config).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "4 keys taken over, 0 were here already") {
		t.Fatalf("aias disk import-tang: got %q, %v", out, err)
	}
	if _, err := c.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got, err := sh(jwe, "clevis decrypt"); err != nil || got != "secret" {
		t.Errorf("clevis decrypt after the import: got %q, %v", got, err)
	}
	if out, err := command(t, "disk", "import-tang", t.TempDir(), "--config", config).CombinedOutput(); err == nil || !strings.Contains(string(out), "no .jwk file") {
		t.Errorf("aias disk import-tang of an empty folder: got %q, %v", out, err)
	}
}
