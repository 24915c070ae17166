//go:build vm

package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/policy"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/reference"
	"touchstone.dev/touchstone/internal/verifier"
)

// patience is how long a test waits for a verdict: the guest's agent makes keys in a software TPM on an emulated processor.
const patience = 4 * time.Minute

// aias is an AIAS that runs on the host, as its own program.
type aias struct {
	*operator.Client
	ca         string // root certificate, PEM
	port       int
	disks      int    // port for clevis
	stop       func() // ends it early
	references string // folder
}

// startAIAS runs an AIAS on a free port of the loopback, which the machines reach at HostAddress. It ends with the test.
func startAIAS(t *testing.T, l *Lab) *aias {
	t.Helper()
	program, err := l.BuildStatic(t.Context(), "./cmd/aias")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	port, disks := freePort(t), freePort(t)
	if err := os.Mkdir(in("roots"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range l.EKRoots() {
		if err := os.WriteFile(filepath.Join(in("roots"), filepath.Base(f)), readTestFile(t, f), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	config := fmt.Sprintf("listen: 127.0.0.1:%d\ndata: %s\naddress: 127.0.0.1:%d\nserverNames: [127.0.0.1, %s]\nsoftwareTPMRoots: %s\n"+
		"disks:\n  listen: 127.0.0.1:%d\n  address: %s:%d\n",
		port, in("data"), port, HostAddress, in("roots"), disks, HostAddress, disks)
	for name, data := range map[string][]byte{"aias": program, "aias.yaml": []byte(config)} {
		if err := os.WriteFile(in(name), data, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	ended, stop := runAIAS(t, in("aias"), in("aias.yaml"))

	a := &aias{port: port, disks: disks, stop: stop, references: in("data/references")}
	bundle := in("data/operator.json")
	eventually(t, "AIAS is ready", func() bool {
		select {
		case <-ended:
			t.Fatal("AIAS ended")
		default:
		}
		c, err := operator.Open(bundle)
		if err != nil || c.Ready(t.Context()) != nil {
			return false
		}
		a.Client = c
		return true
	})
	t.Cleanup(a.Close)
	var b protocol.OperatorBundle
	if err := json.Unmarshal(readTestFile(t, bundle), &b); err != nil {
		t.Fatal(err)
	}
	a.ca = b.CA
	return a
}

// runAIAS starts the program and returns a channel that is closed when it has ended, and what ends it before the end of the test does.
func runAIAS(t *testing.T, program, config string) (<-chan struct{}, func()) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, program, "serve", "--config", config)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		stop()
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		stop()
		<-ended
		if t.Failed() {
			t.Logf("log of AIAS:\n%s", out.Bytes())
		}
	})
	return ended, func() { stop(); <-ended }
}

func readTestFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// freePort returns a port of the loopback that was free a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// eventually asks until the answer is yes.
func eventually(t *testing.T, what string, ask func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ask(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain until %s", patience, what)
		}
	}
}

// agentFiles returns what a machine needs to run the agent: the configuration, a join token and the root of AIAS.
func (a *aias) agentFiles(t *testing.T, node string) map[string]File {
	t.Helper()
	token, err := a.CreateToken(t.Context(), protocol.TokenRequest{Node: node})
	if err != nil {
		t.Fatal(err)
	}
	const caPath, tokenPath = "/etc/trust-agent/ca.pem", "/etc/trust-agent/token"
	config := fmt.Sprintf("server: https://%s\nnode: %s\ntokenFile: %s\ncaFile: %s\n",
		net.JoinHostPort(HostAddress, strconv.Itoa(a.port)), node, tokenPath, caPath)
	return map[string]File{
		ConfigPath: {Mode: 0o644, Data: []byte(config)},
		caPath:     {Mode: 0o644, Data: []byte(a.ca)},
		tokenPath:  {Mode: 0o600, Data: []byte(token.Secret)},
	}
}

// productRules returns the rules of the IMA policy that the product installs on workers.
func productRules(t *testing.T) []string {
	t.Helper()
	var rules []string
	for line := range strings.Lines(string(readTestFile(t, "../../deploy/ima/ima-policy"))) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			rules = append(rules, line)
		}
	}
	return rules
}

// addReference puts a source in the folder of references; Reload makes it count.
func (a *aias) addReference(t *testing.T, s *reference.Source, err error) {
	t.Helper()
	if err == nil {
		_, err = reference.WriteSource(a.references, *s)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// importPackages imports .deb files as an operator would from the Debian archive.
func (a *aias) importPackages(t *testing.T, packages ...Package) {
	t.Helper()
	for _, p := range packages {
		f, err := os.Open(p.Deb)
		if err != nil {
			t.Fatal(err)
		}
		s, err := reference.ImportPackage(f, reference.Options{File: filepath.Base(p.Deb), Now: time.Now()})
		f.Close()
		a.addReference(t, s, err)
	}
}

// importMachine imports the checksums of what a machine boots beside packages: its initrd and the agent.
func (a *aias) importMachine(t *testing.T, m *Machine) {
	t.Helper()
	list, err := m.Checksums()
	if err != nil {
		t.Fatal(err)
	}
	s, err := reference.ImportFiles(bytes.NewReader(list), reference.Options{File: "SHA256SUMS", Name: "worker image", Now: time.Now()})
	a.addReference(t, s, err)
}

// reload makes new references count.
func (a *aias) reload(t *testing.T) {
	t.Helper()
	if _, err := a.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// capture declares the firmware and the keys of a node good.
func (a *aias) capture(t *testing.T, node string) {
	t.Helper()
	raw, err := a.Evidence(t.Context(), node, operator.Last)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := evidence.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	set, err := reference.Load(a.references)
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse(policy.Default())
	if err != nil {
		t.Fatal(err)
	}
	v, err := verifier.New(p, set)
	if err != nil {
		t.Fatal(err)
	}
	s, err := v.Capture(doc, node, time.Now(), verifier.CaptureFirmware, verifier.CaptureKeys)
	a.addReference(t, &s, err)
}
