package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
)

// Namespace is where the chart is installed.
const Namespace = "touchstone"

const (
	nodePort    = 30843           // of AIAS, for agents outside of Kubernetes
	installTime = 4 * time.Minute // until all pods of the chart run
)

// images are those of the chart.
var images = []string{"aias", "trust-agent", "trust-controller"}

// BuildImages makes the images of the product, as `make images` does.
func (c *Cluster) BuildImages(ctx context.Context) error {
	return run(ctx, filepath.Join(c.root, "scripts", "images"), "-arch", "amd64", "-out", c.imageFolder())
}

func (c *Cluster) imageFolder() string { return filepath.Join(c.dir, "images") }

// ImportProduct gives a worker the images of the product.
func (w *Worker) ImportProduct(ctx context.Context) error {
	for _, name := range images {
		if err := w.Import(ctx, filepath.Join(w.c.imageFolder(), name+"-amd64.tar")); err != nil {
			return err
		}
	}
	return nil
}

// Install installs the chart as it is, with AIAS on a worker that has joined, and the values given over those that this laboratory needs.
// Policy is the spec of the TrustPolicy, YAML. It returns the client of an operator of AIAS.
func (c *Cluster) Install(ctx context.Context, home *Worker, policy string, more map[string]any) (*AIAS, error) {
	var spec map[string]any
	if err := yaml.Unmarshal([]byte(policy), &spec); err != nil {
		return nil, err
	}
	roots, err := c.TPMRoots(ctx)
	if err != nil {
		return nil, err
	}
	text := map[string]string{}
	for name, data := range roots {
		text[name] = string(data)
	}
	values := map[string]any{
		"policy": spec,
		"aias": map[string]any{
			"softwareTPMRoots": text, "serverNames": []string{home.IP}, "service": map[string]any{"type": "NodePort", "nodePort": nodePort},
		},
		"agent": map[string]any{
			"tpm":  map[string]any{"kind": "socket", "socketFolder": SocketFolder, "socket": filepath.Base(home.Socket())},
			"host": map[string]any{"root": MachineRoot}, "imageProvider": map[string]any{"enabled": true},
		},
		"controller": map[string]any{"approveKubelets": true},
		"classes":    map[string]any{"regulated": map[string]any{"softwareTPM": "Allow"}},
	}
	merge(values, more)
	data, err := json.Marshal(values) // JSON is YAML
	if err == nil {
		err = writeFiles(c.dir, map[string][]byte{"values.yaml": data})
	}
	if err == nil {
		err = c.volume(ctx, home)
	}
	if err != nil {
		return nil, err
	}
	err = run(ctx, filepath.Join(c.programs, "helm"), "--kubeconfig", c.Kubeconfig(), "upgrade", "--install", "touchstone", filepath.Join(c.root, "deploy/helm/touchstone"),
		"--namespace", Namespace, "--create-namespace", "--values", filepath.Join(c.imageFolder(), "values.yaml"), "--values", filepath.Join(c.dir, "values.yaml"))
	if err != nil {
		return nil, err
	}
	if err := c.rolled(ctx); err != nil {
		return nil, err
	}
	return c.operate(ctx, home)
}

// rolled waits until AIAS runs as the chart says now.
func (c *Cluster) rolled(ctx context.Context) error {
	err := until(ctx, "AIAS runs by the chart", installTime, nil, func(ctx context.Context) error {
		var set apps.StatefulSet
		err := c.Client.Get(ctx, client.ObjectKey{Namespace: Namespace, Name: "aias"}, &set)
		if st := set.Status; err == nil && (st.ObservedGeneration < set.Generation || st.CurrentRevision != st.UpdateRevision || st.ReadyReplicas < 1) {
			err = fmt.Errorf("revision %s is to be %s, %d are ready", st.CurrentRevision, st.UpdateRevision, st.ReadyReplicas)
		}
		return err
	})
	if err != nil {
		return err
	}
	return c.PodsReady(ctx, Namespace, "aias-0")
}

// merge puts the values of more over those of into.
func merge(into, more map[string]any) {
	for key, value := range more {
		below, ok := value.(map[string]any)
		if have, both := into[key].(map[string]any); ok && both {
			merge(have, below)
			continue
		}
		into[key] = value
	}
}

// volume makes the volume of AIAS: a folder of a worker.
func (c *Cluster) volume(ctx context.Context, home *Worker) error {
	path := home.file("volume")
	if err := os.MkdirAll(path, 0o777); err != nil {
		return err
	}
	volume := &core.PersistentVolume{ObjectMeta: meta.ObjectMeta{Name: "aias"}, Spec: core.PersistentVolumeSpec{
		Capacity: core.ResourceList{core.ResourceStorage: resource.MustParse("4Gi")}, AccessModes: []core.PersistentVolumeAccessMode{core.ReadWriteOnce},
		PersistentVolumeReclaimPolicy: core.PersistentVolumeReclaimRetain,
		PersistentVolumeSource:        core.PersistentVolumeSource{Local: &core.LocalVolumeSource{Path: path}},
		NodeAffinity: &core.VolumeNodeAffinity{Required: &core.NodeSelector{NodeSelectorTerms: []core.NodeSelectorTerm{{
			MatchExpressions: []core.NodeSelectorRequirement{{Key: core.LabelHostname, Operator: core.NodeSelectorOpIn, Values: []string{home.Name}}},
		}}}},
	}}
	return client.IgnoreAlreadyExists(c.Client.Create(ctx, volume))
}

// operate makes an operator of AIAS, and gives AIAS the references, both as the documents tell.
func (c *Cluster) operate(ctx context.Context, home *Worker) (*AIAS, error) {
	text, err := c.InAIAS(ctx, nil, "aias", "operator", "add", "test", "--config", "/etc/aias/aias.yaml", "--out", "-")
	if err != nil {
		return nil, err
	}
	var bundle protocol.OperatorBundle
	if err := json.Unmarshal(text, &bundle); err != nil {
		return nil, fmt.Errorf("read the operator's bundle: %w", err)
	}
	a := &AIAS{Server: fmt.Sprintf("https://%s:%d", home.IP, nodePort)}
	if a.CAHash, err = caHash([]byte(bundle.CA)); err != nil {
		return nil, err
	}
	bundle.Server = a.Server
	if text, err = json.Marshal(bundle); err != nil {
		return nil, err
	}
	a.Bundle = filepath.Join(c.dir, "operator.json")
	if err := os.WriteFile(a.Bundle, text, 0o600); err != nil {
		return nil, err
	}
	if a.Client, err = operator.New(bundle); err != nil {
		return nil, err
	}
	folder := filepath.Join(c.dir, "references")
	if err := c.WriteReferences(folder); err != nil {
		return nil, err
	}
	archive, err := output(ctx, "tar", "-C", folder, "-c", ".")
	if err != nil {
		return nil, err
	}
	if _, err := c.InAIAS(ctx, archive, "touchstone", "reference", "unpack"); err != nil {
		return nil, err
	}
	// The Service leads to the pod a moment after the pod is ready.
	return a, until(ctx, "reload", aiasTime, nil, func(ctx context.Context) error {
		_, err := c.InAIAS(ctx, nil, "touchstone", "reload")
		return err
	})
}

// InAIAS runs a program in the pod of AIAS and returns what it writes.
func (c *Cluster) InAIAS(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	all := append([]string{"--kubeconfig", c.Kubeconfig(), "--namespace", Namespace, "exec", "-i", "aias-0", "--"}, args...)
	cmd := exec.CommandContext(ctx, filepath.Join(c.programs, "kubectl"), all...) //nolint:gosec // our own arguments
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(stdin), &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("in the pod of AIAS: %q: %w: %s", args, err, stderr.Bytes())
	}
	return out, nil
}

// Installed waits until the controller's and the agents' pods are ready.
func (c *Cluster) Installed(ctx context.Context) error {
	return until(ctx, "pods of the chart", installTime, nil, func(ctx context.Context) error {
		var controller apps.Deployment
		var agents apps.DaemonSet
		err := errors.Join(c.Client.Get(ctx, client.ObjectKey{Namespace: Namespace, Name: "trust-controller"}, &controller),
			c.Client.Get(ctx, client.ObjectKey{Namespace: Namespace, Name: "trust-agent"}, &agents))
		if err != nil {
			return err
		}
		if d := controller.Status; d.ReadyReplicas < *controller.Spec.Replicas {
			return fmt.Errorf("%d of %d controllers are ready", d.ReadyReplicas, *controller.Spec.Replicas)
		}
		if d := agents.Status; d.NumberReady < d.DesiredNumberScheduled || d.DesiredNumberScheduled == 0 {
			return fmt.Errorf("%d of %d agents are ready", d.NumberReady, d.DesiredNumberScheduled)
		}
		return nil
	})
}
