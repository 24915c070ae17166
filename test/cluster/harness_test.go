//go:build cluster

package cluster

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/swtpm/machine"
)

// policyYAML is the policy of the golden corpus (test/boots/policy.yaml) with short times.
var policyYAML = []byte(`apiVersion: touchstone.dev/v1alpha1
kind: TrustPolicy
metadata:
  name: default
spec:
  attestation:
    interval: 15s
    maxAge: 60s
  kernel:
    commandLine:
      required: ["ima_policy=tcb", "module.sig_enforce=1"]
      allowed: ["console=ttyS0,115200", "ima_policy=tcb", "rootfstype=ramfs", "audit=1", "module.sig_enforce=1", "panic=-1", "quiet"]
`)

// TestHarness brings everything up without the product: workers join, each with the identity of its machine, pods run and see each other.
func TestHarness(t *testing.T) {
	ctx := t.Context()
	c, err := Open(ctx, Config{Members: members(), Workers: 3, Log: say})
	must(t, err)
	defer end(t, c)
	good := captured(t, c, "good")
	for _, w := range c.Workers {
		must(t, c.Step(w.Name+" boots", func() error { return w.Boot(ctx, good) }))
		must(t, c.Step(w.Name+" starts its kubelet", func() error { return w.StartKubelet(ctx) }))
	}
	for _, w := range c.Workers {
		must(t, c.Step(w.Name+" is approved by hand", func() error { return c.Approve(ctx, w.Name) }))
	}
	for _, w := range c.Workers {
		must(t, c.Step(w.Name+" is ready", func() error { return c.Joined(ctx, w) }))
		node, err := c.Set.CoreV1().Nodes().Get(ctx, w.Name, meta.GetOptions{})
		must(t, err)
		boot, err := w.Run(ctx, "cat", "/proc/sys/kernel/random/boot_id")
		must(t, err)
		if i := node.Status.NodeInfo; i.SystemUUID != machine.SystemUUID(w.Name) || i.BootID != strings.TrimSpace(string(boot)) {
			t.Errorf("%s: kubelet reports UUID %s and boot %s, want %s and %s", w.Name, i.SystemUUID, i.BootID, machine.SystemUUID(w.Name), boot)
		}
	}
	aias, err := c.StartAIAS(ctx, policyYAML)
	must(t, err)
	defer aias.Stop()
	for _, w := range c.Workers {
		must(t, c.Step(w.Name+" starts its agent", func() error { return w.StartAgent(ctx, aias) }))
	}
	for _, w := range c.Workers {
		must(t, c.Step(w.Name+" is trusted by AIAS", func() error {
			_, err := aias.Judged(ctx, w.Name, protocol.Trusted)
			return err
		}))
	}
	must(t, c.Workers[2].Execute("/usr/local/bin/miner", []byte("nobody knows this")))
	must(t, c.Step("w3 ran an unknown program", func() error {
		n, err := aias.Judged(ctx, "w3", protocol.Untrusted)
		if err == nil && n.Levels[4].Status != "fail" {
			err = fmt.Errorf("levels are %+v", n.Levels)
		}
		return err
	}))
	server := &core.Pod{
		ObjectMeta: meta.ObjectMeta{Namespace: "default", Name: "server", Labels: map[string]string{"app": "server"}},
		Spec:       busyboxPod(c.Workers[0].Name, "echo hello > /www/index.html; exec httpd -f -p 80 -h /www"),
	}
	service := &core.Service{ObjectMeta: meta.ObjectMeta{Namespace: "default", Name: "server"}, Spec: core.ServiceSpec{
		Selector: server.Labels, Ports: []core.ServicePort{{Port: 80}},
	}}
	must(t, c.Client.Create(ctx, service))
	must(t, c.Client.Create(ctx, server))
	asker := &core.Pod{
		ObjectMeta: meta.ObjectMeta{Namespace: "default", Name: "asker"},
		Spec:       busyboxPod(c.Workers[1].Name, "until printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 "+service.Spec.ClusterIP+" 80 | grep hello; do sleep 0.2; done; exec sleep 100000"),
	}
	must(t, c.Client.Create(ctx, asker))
	must(t, c.Step("pods run", func() error { return c.PodsReady(ctx, "default", "server", "asker") }))
	must(t, c.Step("a pod reaches another worker by a Service", func() error {
		return until(ctx, "answer", podTime, nil, func(ctx context.Context) error {
			logs, err := c.Kubectl(ctx, "logs", "asker")
			if err == nil && !strings.Contains(logs, "hello") {
				err = fmt.Errorf("the pod says %q", logs)
			}
			return err
		})
	}))
	must(t, c.Step("the machine reaches it, too", func() error {
		return until(ctx, "answer", podTime, nil, func(ctx context.Context) error { return get(ctx, "http://"+service.Spec.ClusterIP) })
	}))
}

func get(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// busyboxPod is a pod of one container that runs a shell command.
func busyboxPod(node, command string) core.PodSpec {
	var grace int64 = 1
	return core.PodSpec{NodeName: node, TerminationGracePeriodSeconds: &grace, Containers: []core.Container{{
		Name: "c", Image: BusyboxImage, ImagePullPolicy: core.PullNever, Command: []string{"sh", "-c", command},
	}}}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
