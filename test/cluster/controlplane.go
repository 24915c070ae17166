package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/kubetest"
)

// Programs of the control plane, as Member.Kill and Member.Start name them.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
)

const controlTime = 90 * time.Second // until a program of the control plane is ready

// Member is one member of the control plane: all four programs in a network namespace.
type Member struct {
	c         *Cluster
	name      string
	ip        string
	ns        string
	processes map[string]*kubetest.Process
}

// openPKI makes all authorities, certificates and kubeconfigs of the control plane.
func (c *Cluster) openPKI() error {
	var err error
	for name, a := range map[string]**issuer{"ca": &c.ca, "etcd-ca": &c.etcdCA, "front-ca": &c.frontCA} {
		if *a, err = newIssuer(c.pki, name); err != nil {
			return err
		}
	}
	hosts := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "127.0.0.1", FrontIP, serviceIP}
	for _, m := range c.Members {
		hosts = append(hosts, m.ip)
	}
	for _, i := range []struct {
		by   *issuer
		file string
		s    subject
	}{
		{c.etcdCA, "etcd", subject{user: "etcd", hosts: hosts}},
		{c.etcdCA, "etcd-client", subject{user: "kube-apiserver-etcd-client"}},
		{c.ca, "apiserver", subject{user: "kube-apiserver", hosts: hosts}},
		{c.ca, "apiserver-kubelet", subject{user: "kube-apiserver-kubelet-client", groups: []string{"system:masters"}}},
		{c.frontCA, "front", subject{user: "front-proxy-client"}},
	} {
		if err := i.by.issue(i.file, i.s); err != nil {
			return err
		}
	}
	for file, s := range map[string]subject{
		"admin": {user: "admin", groups: []string{"system:masters"}}, "kcm": {user: "system:kube-controller-manager"},
		"scheduler": {user: "system:kube-scheduler"}, "proxy": {user: "system:kube-proxy"},
	} {
		text, err := c.ca.kubeconfig(c.Server(), s)
		if err == nil {
			err = writeFiles(c.dir, map[string][]byte{file + ".kubeconfig": text})
		}
		if err != nil {
			return err
		}
	}
	private, public, err := kubetest.TokenKey()
	if err != nil {
		return err
	}
	return writeFiles(c.pki, map[string][]byte{"sa.key": private, "sa.pub": public})
}

// args returns the arguments of a program. The flags are those of `kubeadm init`, where it has them.
func (m *Member) args(program string) []string {
	c, file := m.c, func(name string) string { return filepath.Join(m.c.pki, name) }
	config := func(name string) string { return filepath.Join(c.dir, name+".kubeconfig") }
	var text string
	switch program {
	case Etcd:
		var all []string
		for _, o := range c.Members {
			all = append(all, o.name+"=https://"+o.ip+":2380")
		}
		text = "--name " + m.name + " --data-dir " + filepath.Join(c.dir, "etcd-"+m.name) +
			" --listen-client-urls https://127.0.0.1:2379 --advertise-client-urls https://127.0.0.1:2379" +
			" --listen-peer-urls https://" + m.ip + ":2380 --initial-advertise-peer-urls https://" + m.ip + ":2380 --initial-cluster " + strings.Join(all, ",") +
			" --cert-file " + file("etcd.crt") + " --key-file " + file("etcd.key") + " --trusted-ca-file " + file("etcd-ca.crt") + " --client-cert-auth" +
			" --peer-cert-file " + file("etcd.crt") + " --peer-key-file " + file("etcd.key") + " --peer-trusted-ca-file " + file("etcd-ca.crt") + " --peer-client-cert-auth" +
			" --log-level warn --unsafe-no-fsync" // a cluster for an hour: what is lost with the machine is not missed
	case APIServer:
		text = "--bind-address 0.0.0.0 --advertise-address " + m.ip + " --secure-port " + apiPort +
			" --etcd-servers https://127.0.0.1:2379 --etcd-cafile " + file("etcd-ca.crt") + " --etcd-certfile " + file("etcd-client.crt") + " --etcd-keyfile " + file("etcd-client.key") +
			" --tls-cert-file " + file("apiserver.crt") + " --tls-private-key-file " + file("apiserver.key") + " --client-ca-file " + file("ca.crt") +
			" --kubelet-client-certificate " + file("apiserver-kubelet.crt") + " --kubelet-client-key " + file("apiserver-kubelet.key") + " --kubelet-certificate-authority " + file("ca.crt") +
			" --service-account-issuer https://kubernetes.default.svc --service-account-key-file " + file("sa.pub") + " --service-account-signing-key-file " + file("sa.key") +
			" --requestheader-client-ca-file " + file("front-ca.crt") + " --requestheader-allowed-names front-proxy-client --requestheader-username-headers X-Remote-User" +
			" --requestheader-group-headers X-Remote-Group --requestheader-extra-headers-prefix X-Remote-Extra-" +
			" --proxy-client-cert-file " + file("front.crt") + " --proxy-client-key-file " + file("front.key") +
			" --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --enable-bootstrap-token-auth --allow-privileged" +
			" --service-cluster-ip-range " + serviceCIDR + " --kubelet-preferred-address-types InternalIP" +
			" --enable-aggregator-routing" // webhooks are called at their pods: no kube-proxy runs beside the API server
	case ControllerManager:
		text = "--kubeconfig " + config("kcm") + " --authentication-kubeconfig " + config("kcm") + " --authorization-kubeconfig " + config("kcm") +
			" --bind-address 127.0.0.1 --service-account-private-key-file " + file("sa.key") + " --root-ca-file " + file("ca.crt") + " --use-service-account-credentials" +
			" --cluster-signing-cert-file " + file("ca.crt") + " --cluster-signing-key-file " + file("ca.key") + " --controllers *,bootstrapsigner,tokencleaner" +
			" --allocate-node-cidrs --cluster-cidr " + podCIDR + " --service-cluster-ip-range " + serviceCIDR + m.elect()
	case Scheduler:
		text = "--kubeconfig " + config("scheduler") + " --authentication-kubeconfig " + config("scheduler") + " --authorization-kubeconfig " + config("scheduler") +
			" --bind-address 127.0.0.1" + m.elect()
	}
	return append(strings.Fields(text), c.config.Args[program]...)
}

// elect leaves leader election out where there is nobody to compete with: a restart is quicker.
func (m *Member) elect() string { return fmt.Sprintf(" --leader-elect=%v", len(m.c.Members) > 1) }

// Start starts a program of the control plane that does not run. Ready waits for the API server.
func (m *Member) Start(program string) error {
	if m.processes[program].Running() {
		return nil
	}
	p, err := launch(m.ns, m.c.logFile(m.name+"-"+program), filepath.Join(m.c.programs, program), m.args(program)...)
	m.processes[program] = p
	return err
}

// Kill ends a program of the control plane without letting it tidy up.
func (m *Member) Kill(program string) { m.processes[program].Kill() }

// Ready waits until the API server of the member answers that it is ready.
func (m *Member) Ready(ctx context.Context) error {
	return until(ctx, "API server of "+m.name, controlTime, m.processes[APIServer], func(ctx context.Context) error {
		return m.c.ask(ctx, "https://"+m.ip+":"+apiPort+"/readyz")
	})
}

// ask gets a page of an API server, which must answer 200.
func (c *Cluster) ask(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.ca.PEM)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", url, resp.Status, text)
	}
	return nil
}

// Run starts what does not run of a member, and waits for its API server. Controller manager and scheduler give up when they start before one
// answers.
func (m *Member) Run(ctx context.Context) error {
	if err := errors.Join(m.Start(Etcd), m.Start(APIServer)); err != nil {
		return err
	}
	if err := m.Ready(ctx); err != nil {
		return err
	}
	return errors.Join(m.Start(ControllerManager), m.Start(Scheduler))
}

// Stop kills all of a member.
func (m *Member) Stop() {
	for _, program := range []string{Scheduler, ControllerManager, APIServer, Etcd} {
		m.processes[program].Kill()
	}
}

// openControlPlane starts all members and waits for them.
func (c *Cluster) openControlPlane(ctx context.Context) error {
	for _, m := range c.Members {
		if err := os.MkdirAll(filepath.Join(c.dir, "etcd-"+m.name), 0o700); err != nil {
			return err
		}
		if err := attach(ctx, m.ns, m.ip); err != nil {
			return err
		}
		if err := errors.Join(m.Start(Etcd), m.Start(APIServer)); err != nil {
			return err
		}
	}
	if err := c.openFront(ctx); err != nil {
		return err
	}
	for _, m := range c.Members {
		if err := m.Run(ctx); err != nil {
			return err
		}
	}
	return nil
}
