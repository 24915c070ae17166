//go:build cluster

package cluster

import (
	"context"
	"testing"
)

// world is what the scenarios share: a cluster with the product installed. w1 is home of AIAS and was let in by a person, as w2; both have the
// agent of the chart. w3 has an agent outside of Kubernetes and is off: it joins by attestation.
type world struct {
	*Cluster
	aias *AIAS
}

var built *world

// policySpec is the policy of the golden corpus (test/boots/policy.yaml) with short times.
const policySpec = `
attestation: {interval: 15s, maxAge: 60s}
kernel:
  commandLine:
    required: ["ima_policy=tcb", "module.sig_enforce=1"]
    allowed: ["console=ttyS0,115200", "ima_policy=tcb", "rootfstype=ramfs", "audit=1", "module.sig_enforce=1", "panic=-1", "quiet"]
`

// installed returns the cluster with the product; the first scenario that asks brings it up.
func installed(t *testing.T) *world {
	t.Helper()
	if built != nil {
		return built
	}
	if shared.c != nil {
		t.Fatal("the cluster did not come up in an earlier scenario")
	}
	ctx := context.Background() // it outlives this test
	c, err := Open(ctx, Config{Members: members(), Workers: 3, Log: say})
	must(t, err)
	shared.c = c
	must(t, c.Step("images of the product", func() error { return c.BuildImages(ctx) }))
	good := captured(t, c, "good")
	for _, w := range c.Workers[:2] {
		must(t, c.Step(w.Name+" boots", func() error { return w.Boot(ctx, good) }))
		must(t, w.StartKubelet(ctx))
		must(t, c.Step(w.Name+" takes the images", func() error { return w.ImportProduct(ctx) }))
		must(t, c.Approve(ctx, w.Name))
	}
	for _, w := range c.Workers[:2] {
		must(t, c.Step(w.Name+" is ready", func() error { return c.Joined(ctx, w) }))
	}
	out := &world{Cluster: c}
	must(t, c.Step("helm install, AIAS ready", func() error {
		out.aias, err = c.Install(ctx, c.Workers[0], policySpec, nil)
		return err
	}))
	must(t, c.Step("all pods of the chart ready", func() error { return c.Installed(ctx) }))
	for _, w := range c.Workers[:2] {
		must(t, c.Step(w.Name+" is trusted", func() error {
			_, err := c.Until(ctx, w.Name, "trusted", (*Trust).Trusted)
			return err
		}))
	}
	built = out
	return built
}

// TestInstall: the chart comes up on workers that nobody trusts yet, and they become trusted by themselves.
func TestInstall(t *testing.T) { installed(t) }
