package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	certificates "k8s.io/api/certificates/v1"
	core "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// The bootstrap token that all kubelets join with: by itself it opens nothing but the asking for a certificate.
const (
	tokenID     = "e2etok"
	tokenSecret = "0123456789abcdef"
)

const readyTime = 90 * time.Second // until a node is Ready

// kubeletConfig: failCgroupV1 is for machines with v1; with rotateCertificates the kubelet keeps the key of a request in memory, where no agent
// can see it, so that nobody could vouch for it; serving certificates are given, for the tests are about client certificates.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %[1]s/ca.crt}}
authorization: {mode: Webhook}
rotateCertificates: false
tlsCertFile: %[2]s.crt
tlsPrivateKeyFile: %[2]s.key
failSwapOn: false
resolvConf: ""
staticPodPath: /var/lib/kubelet/manifests
evictionHard: {nodefs.available: "1%%", imagefs.available: "1%%", memory.available: "100Mi"}
imageGCHighThresholdPercent: 100
localStorageCapacityIsolation: false
podLogsDir: /var/log/pods
nodeStatusUpdateFrequency: 5s
`

// StartKubelet starts kubelet and kube-proxy. Without a certificate on its disk the kubelet asks for one by the bootstrap token, and is no
// node before it gets one.
func (w *Worker) StartKubelet(ctx context.Context) error {
	if err := w.importOwn(ctx); err != nil {
		return err
	}
	serving := filepath.Join(w.c.pki, w.Name)
	if _, err := os.Stat(serving + ".crt"); err != nil {
		if err := w.c.ca.issue(w.Name, subject{user: "system:node:" + w.Name, groups: []string{"system:nodes"}, hosts: []string{w.Name, w.IP}}); err != nil {
			return err
		}
	}
	config := fmt.Sprintf(kubeletConfig, w.c.pki, serving)
	proxy := "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: nftables\nclusterCIDR: " + podCIDR +
		"\nconntrack: {maxPerCore: 0}\nclientConnection: {kubeconfig: " + filepath.Join(w.c.dir, "proxy.kubeconfig") + "}\n"
	bootstrap := w.c.ca.Kubeconfig(w.c.Server(), "{token: "+tokenID+"."+tokenSecret+"}")
	err := writeFiles(w.dir, map[string][]byte{"kubelet.yaml": []byte(config), "proxy.yaml": []byte(proxy), "bootstrap.kubeconfig": bootstrap})
	if err == nil {
		err = os.MkdirAll(w.kubeletFile("manifests"), 0o755)
	}
	if err != nil {
		return err
	}
	args := append([]string{
		filepath.Join(w.c.programs, "kubelet"), "--config", w.file("kubelet.yaml"), "--kubeconfig", "/var/lib/kubelet/kubeconfig",
		"--bootstrap-kubeconfig", w.file("bootstrap.kubeconfig"), "--cert-dir", "/var/lib/kubelet/pki", "--hostname-override", w.Name, "--node-ip", w.IP,
	}, w.Kubelet...)
	if err := w.enable("kubelet", service{Args: args}); err != nil {
		return err
	}
	return w.enable("kube-proxy", service{Args: []string{filepath.Join(w.c.programs, "kube-proxy"), "--config", w.file("proxy.yaml"), "--hostname-override", w.Name}})
}

// StopKubelet stops kubelet and kube-proxy; pods run on.
func (w *Worker) StopKubelet(ctx context.Context) error {
	return errors.Join(w.disable(ctx, "kubelet"), w.disable(ctx, "kube-proxy"))
}

// ForgetKubelet takes the kubelet's certificates away, as if the disk were new: the next start asks for one again.
func (w *Worker) ForgetKubelet() error {
	return errors.Join(os.RemoveAll(w.kubeletFile("pki")), os.RemoveAll(w.kubeletFile("kubeconfig")))
}

// kubeletCertificate returns the path of the file with certificate and key of the kubelet, as this machine sees it.
func (w *Worker) kubeletCertificate() (string, error) {
	found, err := filepath.Glob(w.kubeletFile("pki", "kubelet-client-20*.pem")) // "current" is a link that is right inside the worker
	if err == nil && len(found) == 0 {
		err = errors.New("it has none")
	}
	if err != nil {
		return "", fmt.Errorf("certificate of the kubelet of %s: %w", w.Name, err)
	}
	return found[len(found)-1], nil
}

// Request waits for a certificate request of the worker's kubelet that nobody has decided.
func (c *Cluster) Request(ctx context.Context, node string) (*certificates.CertificateSigningRequest, error) {
	var found *certificates.CertificateSigningRequest
	err := until(ctx, "certificate request of "+node, readyTime, nil, func(ctx context.Context) error {
		var list certificates.CertificateSigningRequestList
		if err := c.Client.List(ctx, &list); err != nil {
			return err
		}
		for i := range list.Items {
			r := &list.Items[i]
			if len(r.Status.Conditions) == 0 && requestedNode(r) == node {
				found = r
				return nil
			}
		}
		return errors.New("there is none")
	})
	return found, err
}

// Approve approves the kubelet's request for a certificate, as a person with the right to do so.
func (c *Cluster) Approve(ctx context.Context, node string) error {
	r, err := c.Request(ctx, node)
	if err != nil {
		return err
	}
	r.Status.Conditions = append(r.Status.Conditions, certificates.CertificateSigningRequestCondition{
		Type: certificates.CertificateApproved, Status: core.ConditionTrue, Reason: "Person", Message: "approved by hand",
	})
	return c.Client.SubResource("approval").Update(ctx, r)
}

// Joined waits until the worker is a node, gives it its pod network, and waits until it is Ready.
func (c *Cluster) Joined(ctx context.Context, w *Worker) error {
	var node core.Node
	err := until(ctx, "node "+w.Name, readyTime, nil, func(ctx context.Context) error {
		if err := c.Client.Get(ctx, client.ObjectKey{Name: w.Name}, &node); err != nil {
			return err
		}
		if node.Spec.PodCIDR == "" {
			return errors.New("it has no addresses for pods")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := w.openPods(ctx, node.Spec.PodCIDR); err != nil {
		return err
	}
	return c.NodeReady(ctx, w.Name)
}

// openPods writes the configuration of the pod network: a bridge on the worker, and routes between workers.
func (w *Worker) openPods(ctx context.Context, cidr string) error {
	text := fmt.Sprintf(`{"cniVersion":"0.4.0","name":"pods","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":false,"hairpinMode":true,"ipam":{"type":"host-local","ranges":[[{"subnet":%q}]],"routes":[{"dst":"0.0.0.0/0"}],"dataDir":"/run/cni-ipam"}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
`, cidr)
	if err := writeFiles(w.file("cni"), map[string][]byte{"10-pods.conflist": []byte(text)}); err != nil {
		return err
	}
	if err := openServices(ctx, w.IP); err != nil {
		return err
	}
	w.podCIDR = cidr
	for _, other := range w.c.Workers { // those that joined earlier have no route in the namespace of this one yet
		if other.podCIDR != "" {
			if err := route(ctx, other.podCIDR, other.IP, other.ns); err != nil {
				return err
			}
		}
	}
	return nil
}

// NodeReady waits until a node is Ready.
func (c *Cluster) NodeReady(ctx context.Context, name string) error {
	return until(ctx, "node "+name+" ready", readyTime, nil, func(ctx context.Context) error {
		var node core.Node
		if err := c.Client.Get(ctx, client.ObjectKey{Name: name}, &node); err != nil {
			return err
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == core.NodeReady && condition.Status == core.ConditionTrue {
				return nil
			} else if condition.Type == core.NodeReady {
				return errors.New(condition.Message)
			}
		}
		return errors.New("it has not said so")
	})
}
