//go:build cluster

package cluster

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/fleet"
	"touchstone.dev/touchstone/internal/kubetest"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/swtpm/machine"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

// longPolicy is policySpec with results that live through the scenario.
var longPolicy = []byte(strings.NewReplacer("interval: 15s", "interval: 30m", "maxAge: 60s", "maxAge: 2h").Replace(string(policyYAML)))

// large is a cluster of simulated nodes: kwok plays their kubelets, the results come from an AIAS that software TPMs attest to, and the
// controller is a process of its own.
type large struct {
	*world
	names      []string
	workers    *fleet.Workers
	controller *kubetest.Process
	admission  []byte // manifests of the admission policies
}

// openNodes starts kwok and makes the nodes.
func (l *large) openNodes(ctx context.Context) error {
	bin, err := l.Programs(ctx, "kwok")
	if err != nil {
		return err
	}
	dir, err := output(ctx, "go", "-C", filepath.Join(l.root, "test/kubernetes/kwok"), "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok")
	if err != nil {
		return err
	}
	var stages []byte
	for _, pattern := range []string{"node/fast/node-initialize.yaml", "node/heartbeat-with-lease/node-*.yaml", "pod/fast/pod-*.yaml"} {
		files, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "kustomize/stage", pattern)) // the pattern is our own
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			stages = append(append(stages, "---\n"...), text...)
		}
	}
	if err := writeFiles(l.dir, map[string][]byte{"stages.yaml": stages}); err != nil {
		return err
	}
	room := core.ResourceList{core.ResourceCPU: resource.MustParse("32"), core.ResourceMemory: resource.MustParse("256Gi"), core.ResourcePods: resource.MustParse("110")}
	err = parallel(ctx, l.names, func(ctx context.Context, name string) error {
		node := &core.Node{
			ObjectMeta: meta.ObjectMeta{Name: name, Labels: map[string]string{"fleet": "all", core.LabelHostname: name}, Annotations: map[string]string{"kwok.x-k8s.io/node": "fake"}},
			Status:     core.NodeStatus{Capacity: room, Allocatable: room, NodeInfo: core.NodeSystemInfo{SystemUUID: machine.SystemUUID(name), BootID: bootID(name)}},
		}
		status := node.Status
		if err := l.Client.Create(ctx, node); err != nil {
			return err
		}
		before := node.DeepCopy()
		node.Status = status
		return l.Client.Status().Patch(ctx, node, client.MergeFrom(before)) // others write to it, too
	})
	if err != nil {
		return err
	}
	_, err = launch(l.Members[0].ns, l.logFile("kwok"), filepath.Join(bin, "kwok"), "--config", filepath.Join(l.dir, "stages.yaml"), "--kubeconfig", l.Kubeconfig(),
		"--manage-all-nodes", "--node-lease-duration-seconds", "40", "--cidr", podCIDR)
	return err
}

func bootID(name string) string { return machine.SystemUUID("boot of " + name) }

// parallel does something for each name.
func parallel(ctx context.Context, names []string, do func(context.Context, string) error) error {
	work, errs := make(chan string), make(chan error, len(names))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for name := range work {
				if err := do(ctx, name); err != nil {
					errs <- fmt.Errorf("%s: %w", name, err)
				}
			}
		})
	}
	for _, name := range names {
		work <- name
	}
	close(work)
	wg.Wait()
	close(errs)
	return <-errs
}

// openWorkers starts AIAS and has a software TPM for each node attest to it.
func (l *large) openWorkers(t *testing.T) error {
	ctx := t.Context()
	maker, err := softtpm.NewCA()
	if err != nil {
		return err
	}
	issuer := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: maker.Issuer.Raw})
	if err := writeFiles(filepath.Join(l.dir, "aias", "roots"), map[string][]byte{"fleet-root.pem": maker.RootPEM(), "fleet-issuer.pem": issuer}); err != nil {
		return err
	}
	if l.aias, err = l.StartAIAS(ctx, longPolicy); err != nil {
		return err
	}
	t.Cleanup(l.aias.Stop)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(l.aias.CA)
	l.workers, err = fleet.NewWorkers(strings.TrimPrefix(l.aias.Server, "https://"), roots, maker, l.names, func(name string) map[string][]byte {
		return map[string][]byte{evidence.FactMachine: []byte(machine.SystemUUID(name)), evidence.FactBootID: []byte(bootID(name))}
	})
	if err != nil {
		return err
	}
	token, err := l.aias.Client.CreateToken(ctx, protocol.TokenRequest{Uses: fleetNodes, Note: "S5"})
	if err != nil {
		return err
	}
	if err := l.workers.Enrol(ctx, token.Secret); err != nil {
		return err
	}
	trusted, err := l.workers.Attest(ctx)
	if err == nil && trusted != fleetNodes {
		err = fmt.Errorf("AIAS trusts %d workers of %d", trusted, fleetNodes)
	}
	return err
}

// openObjects applies what the chart has but pods: they would run on simulated nodes.
func (l *large) openObjects(ctx context.Context) error {
	values := "classes: {regulated: {softwareTPM: Allow}}\nenforcement: {breaker: {maxShare: 30}}\n"
	if err := writeFiles(l.dir, map[string][]byte{"s5.yaml": []byte(values)}); err != nil {
		return err
	}
	text, err := output(ctx, filepath.Join(l.programs, "helm"), "template", "touchstone", filepath.Join(l.root, "deploy/helm/touchstone"),
		"--namespace", Namespace, "--include-crds", "--values", filepath.Join(l.dir, "s5.yaml"))
	if err != nil {
		return err
	}
	pods := []string{"Deployment", "DaemonSet", "StatefulSet", "Service", "PodDisruptionBudget", "NetworkPolicy"}
	var types, rest []string
	for _, one := range strings.Split("\n"+string(text), "\n---\n") {
		var kind meta.TypeMeta
		if err := yaml.Unmarshal([]byte(one), &kind); err != nil {
			return err
		}
		switch {
		case kind.Kind == "" || slices.Contains(pods, kind.Kind):
		case kind.Kind == "CustomResourceDefinition":
			types = append(types, one)
		default:
			rest = append(rest, one)
			if strings.HasPrefix(kind.APIVersion, "admissionregistration.k8s.io/") {
				l.admission = append(append(l.admission, "---\n"...), one...)
			}
		}
	}
	if err := l.Client.Create(ctx, &core.Namespace{ObjectMeta: objectMeta("", Namespace)}); err != nil {
		return err
	}
	if err := l.apply(ctx, "types.yaml", []byte(strings.Join(types, "\n---\n"))); err != nil {
		return err
	}
	if _, err := l.Kubectl(ctx, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"); err != nil {
		return err
	}
	if err := l.apply(ctx, "objects.yaml", []byte(strings.Join(rest, "\n---\n"))); err != nil {
		return err
	}
	return l.openWebhook(ctx)
}

func (l *large) apply(ctx context.Context, name string, text []byte) error {
	if err := writeFiles(l.dir, map[string][]byte{name: text}); err != nil {
		return err
	}
	_, err := l.Kubectl(ctx, "apply", "--server-side", "-f", filepath.Join(l.dir, name))
	return err
}

// openWebhook leads the Service of the webhook to the process of the controller.
func (l *large) openWebhook(ctx context.Context) error {
	ready, port, name := true, int32(9443), "webhook"
	service := &core.Service{ObjectMeta: objectMeta(Namespace, "trust-controller"), Spec: core.ServiceSpec{Ports: []core.ServicePort{{Name: name, Port: 443, TargetPort: intstr.FromInt32(port)}}}}
	slice := &discovery.EndpointSlice{
		ObjectMeta:  meta.ObjectMeta{Namespace: Namespace, Name: "trust-controller", Labels: map[string]string{discovery.LabelServiceName: "trust-controller"}},
		AddressType: discovery.AddressTypeIPv4, Ports: []discovery.EndpointPort{{Name: &name, Port: &port}},
		Endpoints: []discovery.Endpoint{{Addresses: []string{MemberIP(1)}, Conditions: discovery.EndpointConditions{Ready: &ready}}},
	}
	return errors.Join(l.Client.Create(ctx, service), l.Client.Create(ctx, slice))
}

// startController starts the controller as its service account, and waits until all nodes are trusted.
func (l *large) startController(ctx context.Context) error {
	program, err := l.Build(ctx, "trust-controller")
	if err != nil {
		return err
	}
	seconds := int64(24 * 3600)
	token, err := l.Set.CoreV1().ServiceAccounts(Namespace).CreateToken(ctx, "trust-controller",
		&authentication.TokenRequest{Spec: authentication.TokenRequestSpec{ExpirationSeconds: &seconds}}, meta.CreateOptions{})
	if err != nil {
		return err
	}
	bundle := filepath.Join(l.dir, "controller.json")
	aias := filepath.Join(l.dir, "bin", "aias")
	if _, err := os.Stat(bundle); err != nil {
		if err := run(ctx, aias, "controller", "add", "s5", "--config", filepath.Join(l.dir, "aias", "aias.yaml"), "--out", bundle); err != nil {
			return err
		}
	}
	config := l.ca.Kubeconfig("https://"+MemberIP(1)+":"+apiPort, "{token: "+token.Status.Token+"}")
	if err := writeFiles(l.dir, map[string][]byte{"controller.kubeconfig": config}); err != nil {
		return err
	}
	l.controller, err = launch(l.Members[0].ns, l.logFile("trust-controller"), program, "--kubeconfig", filepath.Join(l.dir, "controller.kubeconfig"), "--operator", bundle,
		"--namespace", Namespace, "--leader-elect=false", "--join=false", "--carry-policy=false")
	if err != nil {
		return err
	}
	return until(ctx, "all nodes trusted", fleetTime, l.controller, func(ctx context.Context) error {
		return l.labelled(ctx, v1alpha1.ClassNodeLabelPrefix+"regulated", fleetNodes)
	})
}

// labelled checks that so many nodes have a label.
func (l *large) labelled(ctx context.Context, label string, want int) error {
	list := &meta.PartialObjectMetadataList{}
	list.SetGroupVersionKind(core.SchemeGroupVersion.WithKind("NodeList"))
	if err := l.Client.List(ctx, list, client.HasLabels{label}); err != nil {
		return err
	}
	if len(list.Items) != want {
		return fmt.Errorf("%d nodes have label %s, want %d", len(list.Items), label, want)
	}
	return nil
}

// resident returns the memory of the controller in MiB: what it has, and what it had at most.
func (l *large) resident(t *testing.T) (now, most int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.controller.PID()))
	must(t, err)
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		kib, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		switch name {
		case "VmRSS":
			now = kib >> 10
		case "VmHWM":
			most = kib >> 10
		}
	}
	return now, most
}
