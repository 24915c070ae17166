package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/authority"
	"touchstone.dev/touchstone/internal/kubetest"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/swtpm"
)

const aiasTime = 30 * time.Second // until AIAS is ready

// AIAS is `aias serve` beside the control plane, outside of Kubernetes.
type AIAS struct {
	Server, CAHash string
	CA             []byte // PEM
	Bundle         string // file of an operator, for touchstone
	Client         *operator.Client

	process *kubetest.Process
}

// Build builds a program of this repository, and returns its path.
func (c *Cluster) Build(ctx context.Context, name string) (string, error) {
	out := filepath.Join(c.dir, "bin", name)
	cmd := append([]string{"-C", c.root, "build", "-trimpath", "-ldflags=-s -w", "-o", out}, "./cmd/"+name)
	return out, run(ctx, "env", append([]string{"CGO_ENABLED=0", "go"}, cmd...)...)
}

// StartAIAS starts AIAS in the network of the first member. The makers of TPMs that it trusts and its references are laid out by roots and
// WriteReferences.
func (c *Cluster) StartAIAS(ctx context.Context, policy []byte) (*AIAS, error) {
	program, err := c.Build(ctx, "aias")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(c.dir, "aias")
	config := authority.DefaultConfig()
	config.Listen, config.Data = net.JoinHostPort(MemberIP(1), "8443"), filepath.Join(dir, "data")
	config.Address, config.ServerNames = config.Listen, []string{MemberIP(1)}
	config.References, config.SoftwareTPMRoots, config.PolicyFile = filepath.Join(dir, "references"), filepath.Join(dir, "roots"), filepath.Join(dir, "policy.yaml")
	text, err := json.Marshal(config) // JSON is YAML
	if err != nil {
		return nil, err
	}
	roots, err := c.TPMRoots(ctx)
	if err == nil {
		err = errors.Join(writeFiles(dir, map[string][]byte{"aias.yaml": text, "policy.yaml": policy}), writeFiles(config.SoftwareTPMRoots, roots), c.WriteReferences(config.References))
	}
	if err != nil {
		return nil, err
	}
	a := &AIAS{Server: "https://" + config.Address}
	a.process, err = launch(c.Members[0].ns, c.logFile("aias"), program, "serve", "--config", filepath.Join(dir, "aias.yaml"))
	if err != nil {
		return nil, err
	}
	return a, until(ctx, "AIAS", aiasTime, a.process, func(ctx context.Context) error {
		return a.connect(ctx, filepath.Join(config.Data, authority.OperatorFile))
	})
}

// connect opens the operator's client.
func (a *AIAS) connect(ctx context.Context, bundle string) error {
	client, err := operator.Open(bundle)
	if err != nil {
		return err
	}
	if err := client.Ready(ctx); err != nil {
		client.Close()
		return err
	}
	a.Client = client
	data, err := os.ReadFile(bundle)
	if err != nil {
		return err
	}
	var b protocol.OperatorBundle
	if err := json.Unmarshal(data, &b); err != nil {
		return err
	}
	a.CA = []byte(b.CA)
	a.CAHash, err = caHash(a.CA)
	return err
}

// Stop ends AIAS.
func (a *AIAS) Stop() {
	a.Client.Close()
	a.process.Stop(termTime)
}

// TPMRoots returns the certificates of the maker of the workers' TPMs, by file name. The first TPM is made when there is none yet.
func (c *Cluster) TPMRoots(ctx context.Context) (map[string][]byte, error) {
	if err := swtpm.Manufacture(ctx, swtpm.Options{Dir: filepath.Join(c.dir, "tpm-sample"), EKCA: c.EKCA()}); err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for _, file := range []string{swtpm.RootFile(c.EKCA()), swtpm.IssuerFile(c.EKCA())} {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		out[filepath.Base(file)] = data
	}
	return out, nil
}

// WriteReferences writes the references by which the captured good boots are good, into a folder. The maker of the corpus's own TPMs is
// not among them.
func (c *Cluster) WriteReferences(dir string) error {
	found, err := filepath.Glob(filepath.Join(c.root, "test/boots/references/*.json"))
	if err != nil {
		return err
	}
	files := map[string][]byte{}
	for _, file := range found {
		if name := filepath.Base(file); !strings.HasPrefix(name, "endorser-") {
			if files[name], err = os.ReadFile(file); err != nil {
				return err
			}
		}
	}
	return writeFiles(dir, files)
}

// StartAgent starts the trust agent of a worker outside of Kubernetes, as a unit of systemd would be. It joins by a token for its name.
func (w *Worker) StartAgent(ctx context.Context, a *AIAS) error {
	program, err := w.c.Build(ctx, "trust-agent")
	if err != nil {
		return err
	}
	token, err := a.Client.CreateToken(ctx, protocol.TokenRequest{Node: w.Name, Uses: 1, Note: "test"})
	if err != nil {
		return err
	}
	text := strings.Join([]string{
		"server: " + a.Server, "node: " + w.Name, "caHash: " + a.CAHash, "tokenFile: " + w.file("token"), "stateDir: /var/lib/touchstone/agent",
		"statusFile: " + w.file("status.json"), "tpm: unix:" + filepath.Join(SocketFolder, filepath.Base(w.Socket())), "hostRoot: " + MachineRoot, "kubelet: {pkiDir: " + kubeletDir + "/pki}", "",
	}, "\n")
	err = writeFiles(w.dir, map[string][]byte{"token": []byte(token.Secret), "agent.yaml": []byte(text)})
	if err != nil {
		return err
	}
	return w.enable("trust-agent", service{Args: []string{program, "run", "--config", w.file("agent.yaml")}})
}

// StopAgent stops it.
func (w *Worker) StopAgent(ctx context.Context) error { return w.disable(ctx, "trust-agent") }

// Judged waits for what AIAS says of a node, and returns it.
func (a *AIAS) Judged(ctx context.Context, node, trust string) (*protocol.Node, error) {
	var n *protocol.Node
	err := until(ctx, node+" "+trust, aiasTime, nil, func(ctx context.Context) error {
		var err error
		if n, err = a.Client.Node(ctx, node); err == nil && n.Trust != trust {
			err = fmt.Errorf("it is %s: %s", n.Trust, n.Reason)
		}
		return err
	})
	return n, err
}
