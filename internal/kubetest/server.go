package kubetest

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	tries     = 3                // ports were free when they were chosen, not when they were taken
	readyTime = 90 * time.Second // of a machine that has other things to do
	readyPoll = 50 * time.Millisecond
)

// Server is a running API server.
type Server struct {
	URL        string // "https://127.0.0.1:PORT"
	CA         []byte // PEM: who signed the certificates of the server and of its clients
	CAFile     string // the same, as a file
	Kubeconfig string // file: the user "admin" of group system:masters
	Dir        string // folder of its files, gone with the test binary
	Issuer     string // of tokens

	admin     *http.Client
	authority *Authority
	stop      func()
}

var shared struct {
	sync.Mutex
	server *Server
	err    error
}

// Start returns the API server that all tests of this binary share; the first call starts it. It ends with the binary, however that ends.
// Tests that share it keep to namespaces of their own.
func Start(t testing.TB) *Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = start(nil)
	}
	if shared.err != nil {
		t.Fatalf("start kube-apiserver: %v", shared.err)
	}
	return shared.server
}

// StartOwn starts an API server for t alone, with further arguments of kube-apiserver: for tests that stop it, or need another one.
// It is stopped when t ends.
func StartOwn(t testing.TB, arguments ...string) *Server {
	t.Helper()
	s, err := start(arguments)
	if err != nil {
		t.Fatalf("start kube-apiserver: %v", err)
	}
	t.Cleanup(s.Stop)
	return s
}

// Stop kills the server and its etcd; what it held is gone. A second call does nothing.
func (s *Server) Stop() { s.stop() }

// Client returns an HTTP client that is the user "admin" of group system:masters.
func (s *Server) Client() *http.Client { return s.admin }

// start starts both programs, again with other ports when something else took one.
func start(arguments []string) (*Server, error) {
	bin, err := programs("etcd", "kube-apiserver")
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		s, err := launch(bin, arguments)
		if err == nil || try == tries {
			return s, err
		}
		fmt.Fprintf(os.Stderr, "kubetest: try %d: %v\n", try, err)
	}
}

func launch(bin string, arguments []string) (_ *Server, err error) {
	dir, sweep, err := folder()
	if err != nil {
		return nil, err
	}
	var running []*Process
	s := &Server{Dir: dir, Issuer: "https://kubernetes.default.svc"}
	s.stop = sync.OnceFunc(func() {
		for _, p := range running {
			p.Kill()
		}
		sweep()
	})
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	etcdURL := "http://127.0.0.1:" + ports[0]
	s.URL = "https://127.0.0.1:" + ports[2]
	if err := s.writeFiles(); err != nil {
		return nil, err
	}
	etcd, err := Run(dir, filepath.Join(dir, "etcd.log"), filepath.Join(bin, "etcd"), etcdArguments(dir, etcdURL, "http://127.0.0.1:"+ports[1])...)
	if err != nil {
		return nil, err
	}
	running = append(running, etcd)
	server, err := Run(dir, filepath.Join(dir, "kube-apiserver.log"), filepath.Join(bin, "kube-apiserver"), append(serverArguments(dir, etcdURL, ports[2], s.Issuer), arguments...)...)
	if err != nil {
		return nil, err
	}
	running = append(running, server)
	return s, s.waitReady(etcd, server)
}

func etcdArguments(dir, client, peer string) []string {
	return []string{"--name=kubetest", "--data-dir=" + filepath.Join(dir, "etcd"), "--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=kubetest=" + peer, "--unsafe-no-fsync", "--log-level=warn"}
}

func serverArguments(dir, etcd, port, issuer string) []string {
	file := func(name string) string { return filepath.Join(dir, name) }
	return []string{"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none", "--secure-port=" + port, "--etcd-servers=" + etcd,
		"--tls-cert-file=" + file("server.crt"), "--tls-private-key-file=" + file("server.key"), "--client-ca-file=" + file("ca.crt"), "--cert-dir=" + dir,
		"--service-account-issuer=" + issuer, "--service-account-key-file=" + file("sa.pub"), "--service-account-signing-key-file=" + file("sa.key"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--enable-bootstrap-token-auth", "--allow-privileged=true",
		"--service-cluster-ip-range=10.96.0.0/16", "--profiling=false"}
}

// waitReady returns when the server says that all its parts are ready.
func (s *Server) waitReady(etcd, server *Process) error {
	timeout := time.After(readyTime)
	for {
		err := s.ready()
		if err == nil {
			return nil
		}
		select {
		case <-etcd.Done():
			return fmt.Errorf("etcd ended: %s", etcd.Output())
		case <-server.Done():
			return fmt.Errorf("kube-apiserver ended: %s", server.Output())
		case <-timeout:
			return fmt.Errorf("not ready after %s: %w: %s", readyTime, err, server.Output())
		case <-time.After(readyPoll):
		}
	}
}

func (s *Server) ready() error {
	response, err := s.admin.Get(s.URL + "/readyz")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", response.Status, b)
	}
	return nil
}

// HTTP returns a client that presents a certificate for a user and groups ("system:node:w1", "system:nodes").
func (s *Server) HTTP(user string, groups ...string) (*http.Client, error) {
	certificate, key, err := s.Certificate(user, groups...)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(s.CA) {
		return nil, errors.New("own CA cannot be read")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
	return &http.Client{Transport: transport, Timeout: time.Minute}, nil
}

// Programs returns the folder that holds programs of Kubernetes, or what the tests need beside it: kubectl, helm, kubelet and others that
// scripts/kubernetes builds.
func Programs(t testing.TB, names ...string) string {
	t.Helper()
	bin, err := programs(names...)
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// programs asks the environment or the script for the folder that holds programs.
func programs(names ...string) (string, error) {
	wanted := strings.Join(names, " ")
	bin := os.Getenv("TOUCHSTONE_KUBERNETES")
	if bin == "" {
		script, err := script()
		if err != nil {
			return "", err
		}
		cmd := exec.Command(script, names...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("%s %s: %w", script, wanted, err)
		}
		bin = strings.TrimSpace(string(out))
	}
	for _, program := range names {
		if _, err := os.Stat(filepath.Join(bin, program)); err != nil {
			return "", fmt.Errorf("%w: let TOUCHSTONE_KUBERNETES be what `scripts/kubernetes %s` prints, or unset it", err, wanted)
		}
	}
	return bin, nil
}

// script finds scripts/kubernetes above the folder of the tests.
func script() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		path := filepath.Join(dir, "scripts", "kubernetes")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("scripts/kubernetes is not above this folder: let TOUCHSTONE_KUBERNETES be a folder with etcd and kube-apiserver")
		}
	}
}

// Run starts another program of Kubernetes beside the server, with the user "admin" for its kubeconfig, until t ends: kube-scheduler, or
// kube-controller-manager with the controllers that a test is about. It listens on no port that anyone knows.
func (s *Server) Run(t testing.TB, program string, arguments ...string) {
	t.Helper()
	bin, err := programs(program)
	if err != nil {
		t.Fatal(err)
	}
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Run(s.Dir, filepath.Join(s.Dir, program+".log"), filepath.Join(bin, program), append([]string{"--kubeconfig=" + s.Kubeconfig, "--authentication-skip-lookup", "--leader-elect=false",
		"--bind-address=127.0.0.1", "--secure-port=" + ports[0], "--cert-dir=" + s.Dir}, arguments...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("%s: %s", program, p.Output())
		}
	})
}
