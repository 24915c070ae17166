package cluster

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	certificates "k8s.io/api/certificates/v1"
)

// packages are the Debian packages that a cluster needs: a file that tells that one is there, its name, and what it is for.
var packages = []struct{ probe, name, why string }{
	{"/usr/bin/containerd", "containerd", "runs the containers of a worker"},
	{"/usr/sbin/runc", "runc", "runs one container"},
	{"/usr/lib/cni/bridge", "containernetworking-plugins", "network of pods"},
	{busybox, "busybox-static", "image of the test's pods"},
	{"/bin/ip", "iproute2", "network of the workers"},
	{"/usr/sbin/nft", "nftables", "kube-proxy"},
	{"/usr/sbin/conntrack", "conntrack", "kube-proxy"},
	{"/usr/sbin/iptables", "iptables", "CNI portmap"},
	{"/usr/bin/nsenter", "util-linux", "network of the workers"},
	{"/sbin/sysctl", "procps", "network of the workers"},
	{"/usr/bin/swtpm", "swtpm", "TPM of a worker"},
	{"/usr/bin/swtpm_setup", "swtpm-tools", "makes the TPM of a worker"},
	{"/usr/bin/oscap", "openscap-scanner", "scans images"},
}

// installPackages installs what is missing, and says so.
func installPackages(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("this makes namespaces and network interfaces: run it as root")
	}
	var missing []string
	for _, p := range packages {
		if _, err := os.Stat(p.probe); err != nil {
			fmt.Fprintf(os.Stderr, "apt: %s (%s)\n", p.name, p.why)
			missing = append(missing, p.name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	install := func() error {
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"install", "-qq", "-y", "--no-install-recommends"}, missing...)...) //nolint:gosec // our list
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("install %s (this is made for Debian): %w\n%s", strings.Join(missing, " "), err, out)
		}
		return nil
	}
	if install() == nil {
		return nil
	}
	return errors.Join(run(ctx, "apt-get", "update", "-qq"), install()) // the lists may have been too old
}

// kubernetesPrograms are the programs that scripts/kubernetes builds once and keeps.
var kubernetesPrograms = []string{Etcd, APIServer, ControllerManager, Scheduler, "kubelet", "kube-proxy", "kubectl", "helm"}

// findPrograms finds the repository and the programs of Kubernetes, built when they are not there.
func (c *Cluster) findPrograms(ctx context.Context) error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	for c.root = dir; ; c.root = filepath.Dir(c.root) {
		if _, err := os.Stat(filepath.Join(c.root, "go.mod")); err == nil {
			break
		}
		if c.root == filepath.Dir(c.root) {
			return fmt.Errorf("no go.mod above %s: run this inside the repository", dir)
		}
	}
	c.programs, err = c.Programs(ctx, kubernetesPrograms...)
	return err
}

// Programs returns the folder of programs that scripts/kubernetes builds.
func (c *Cluster) Programs(ctx context.Context, names ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.root, "scripts", "kubernetes"), names...) //nolint:gosec // our own script
	cmd.Stderr = os.Stderr                                                                    // it says what it builds, for minutes
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("scripts/kubernetes: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// requestedNode returns the node whose kubelet a request for a client certificate is for, or "".
func requestedNode(r *certificates.CertificateSigningRequest) string {
	if r.Spec.SignerName != certificates.KubeAPIServerClientKubeletSignerName {
		return ""
	}
	block, _ := pem.Decode(r.Spec.Request)
	if block == nil {
		return ""
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return ""
	}
	return strings.TrimPrefix(csr.Subject.CommonName, "system:node:")
}
