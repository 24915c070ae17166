package webhook

import (
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	arv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/admission"
	"touchstone.dev/touchstone/internal/admission/isolation"
)

// TestWebhook walks through what the webhook decides, on one API server.
func TestWebhook(t *testing.T) {
	w := newWorld(t)
	w.class("regulated", nil)
	w.namespace("pay")
	w.eventually("without a controller pods of a class are refused", func() error { return refusedWith(w.Create(ctx, pod("pay", "regulated")), "") })
	w.must(w.Create(ctx, pod("pay", "")))

	stop := w.run(Options{})
	var refusal error
	w.eventually("the table, the certificate and the webhook are there", func() error {
		refusal = w.Create(ctx, pod("pay", "regulated"))
		return refusedWith(refusal, "no NetworkPolicy selects it for ingress, no NetworkPolicy selects it for egress; apply this one")
	})

	// The manifest of the refusal, as it is printed, makes the pod pass.
	var policy netv1.NetworkPolicy
	text := refusal.Error()
	w.must(yaml.UnmarshalStrict([]byte(text[strings.Index(text, "apiVersion: networking"):]), &policy))
	w.must(w.Create(ctx, &policy))
	p := pod("pay", "regulated")
	w.must(w.Create(ctx, p))

	host := pod("pay", "regulated")
	host.Spec.HostNetwork = true
	w.must(refusedWith(w.Create(ctx, host), "remove hostNetwork"))

	t.Run("policy is kept", func(t *testing.T) {
		w.t = t
		words := "pod " + p.Name + " of trust class regulated must stay isolated"
		w.must(refusedWith(w.Delete(ctx, policy.DeepCopy()), words))
		open := policy.DeepCopy()
		open.Spec.Egress = []netv1.NetworkPolicyEgressRule{{}}
		w.must(refusedWith(w.Update(ctx, open), words))
		// Another policy beside it adds what it allows.
		for name, spec := range map[string]netv1.NetworkPolicySpec{
			"egress to all":            {PolicyTypes: []netv1.PolicyType{netv1.PolicyTypeEgress}, Egress: []netv1.NetworkPolicyEgressRule{{}}},
			"ingress from all, by pod": {PodSelector: metav1.LabelSelector{MatchLabels: p.Labels}, Ingress: []netv1.NetworkPolicyIngressRule{{}}},
		} {
			beside := &netv1.NetworkPolicy{Spec: spec}
			beside.Namespace, beside.GenerateName = "pay", "beside-"
			if err := refusedWith(w.Create(ctx, beside.DeepCopy()), words); err != nil {
				t.Errorf("new policy, %s: %v", name, err)
			}
			beside.Spec.PodSelector = metav1.LabelSelector{MatchLabels: map[string]string{"app": "another"}}
			if err := w.Create(ctx, beside, client.DryRunAll); err != nil {
				t.Errorf("new policy of other pods, %s: %v", name, err)
			}
		}
		harmless := &netv1.NetworkPolicy{Spec: netv1.NetworkPolicySpec{Egress: []netv1.NetworkPolicyEgressRule{{To: []netv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}}}}}}
		harmless.Namespace, harmless.Name = "pay", "harmless"
		w.must(w.Create(ctx, harmless))
		harmless.Spec.Egress[0].To = nil
		w.must(refusedWith(w.Update(ctx, harmless.DeepCopy()), words))
		w.must(w.Delete(ctx, harmless))
		narrow := policy.DeepCopy()
		narrow.Spec.Egress = nil
		w.must(w.Update(ctx, narrow))
		second := narrow.DeepCopy()
		second.Name, second.ResourceVersion = "second", ""
		w.must(w.Create(ctx, second))
		w.must(w.Delete(ctx, narrow))
		w.must(refusedWith(w.Delete(ctx, second.DeepCopy()), words))
		w.must(w.Delete(ctx, p, client.GracePeriodSeconds(0)))
		w.must(w.Delete(ctx, second))
	})

	t.Run("policies are watched", func(t *testing.T) {
		w.t = t
		w.class("open", func(s *v1alpha1.TrustClassSpec) { s.Network.Isolation = v1alpha1.None })
		w.eventually("class open", func() error { return w.Create(ctx, pod("pay", "open")) })
		b := &arv1.ValidatingAdmissionPolicyBinding{}
		w.must(w.Get(ctx, client.ObjectKey{Name: "pods.touchstone.dev"}, b))
		w.must(w.Delete(ctx, b))
		w.eventually("refused", func() error {
			return refusedWith(w.Create(ctx, pod("pay", "open")), "ValidatingAdmissionPolicyBinding pods.touchstone.dev is missing")
		})
		b.ResourceVersion = ""
		w.must(w.Create(ctx, b))
		w.eventually("open again", func() error { return w.Create(ctx, pod("pay", "open")) })
		v := &arv1.ValidatingAdmissionPolicy{}
		w.must(w.Get(ctx, client.ObjectKey{Name: "living-pods.touchstone.dev"}, v))
		kept := v.DeepCopy()
		v.Spec.Validations = v.Spec.Validations[:1]
		w.must(w.Update(ctx, v))
		w.eventually("refused", func() error {
			return refusedWith(w.Create(ctx, pod("pay", "open")), "living-pods.touchstone.dev is not that of this version")
		})
		w.enforced("open", metav1.ConditionFalse, "Changed", "living-pods.touchstone.dev is not that of this version")
		kept.ResourceVersion = v.ResourceVersion
		w.must(w.Update(ctx, kept))
		w.eventually("open again", func() error { return w.Create(ctx, pod("pay", "open")) })
	})

	t.Run("whatever is missing or changed is told", func(t *testing.T) {
		w.t = t
		for _, class := range []string{"regulated", "open"} {
			w.enforced(class, metav1.ConditionTrue, "InPlace", "")
		}
		bindings := &arv1.ValidatingAdmissionPolicy{}
		w.must(w.Get(ctx, client.ObjectKey{Name: "bindings.touchstone.dev"}, bindings))
		kept := bindings.DeepCopy()
		check := &bindings.Spec.Validations[0]
		check.Expression = strings.Replace(check.Expression, "['", "['mallory', '", 1)
		w.broken("one more scheduler", reasonChanged, "bindings.touchstone.dev is not that of this version", func() { w.must(w.Update(ctx, bindings)) }, func() {
			kept.ResourceVersion = bindings.ResourceVersion
			w.must(w.Update(ctx, kept))
		})
		daemons := &arv1.MutatingAdmissionPolicy{}
		w.must(w.Get(ctx, client.ObjectKey{Name: "tolerations-of-daemonsets.touchstone.dev"}, daemons))
		w.broken("policy deleted", reasonMissing, "MutatingAdmissionPolicy tolerations-of-daemonsets.touchstone.dev is missing: install the chart", func() {
			w.must(w.Delete(ctx, daemons))
		}, func() {
			daemons.ResourceVersion = ""
			w.must(w.Create(ctx, daemons))
		})
		hooks := &arv1.ValidatingWebhookConfiguration{}
		get := func() { w.must(w.Get(ctx, client.ObjectKey{Name: admission.WebhookName}, hooks)) }
		get()
		whole := hooks.DeepCopy().Webhooks
		w.broken("webhook that fails open", reasonChanged, "ValidatingWebhookConfiguration touchstone is not that", func() {
			w.eventually("update", func() error { // replicas write it, too
				get()
				hooks.Webhooks[2].FailurePolicy = new(arv1.Ignore)
				return w.Update(ctx, hooks)
			})
		}, func() {
			w.eventually("update", func() error {
				get()
				hooks.Webhooks = whole
				return w.Update(ctx, hooks)
			})
		})
		w.broken("no webhook", reasonMissing, "ValidatingWebhookConfiguration touchstone is missing", func() { w.must(w.Delete(ctx, hooks)) }, func() {
			hooks.ResourceVersion = ""
			w.must(w.Create(ctx, hooks))
		})
	})

	t.Run("pods of a namespace without the policies that give them the class", func(t *testing.T) {
		w.t = t
		w.namespace("classy")
		ns := &corev1.Namespace{}
		w.must(w.Get(ctx, client.ObjectKey{Name: "classy"}, ns))
		ns.Labels[v1alpha1.ClassLabel] = "open"
		w.must(w.Update(ctx, ns))
		w.eventually("class given", func() error {
			p := pod("classy", "")
			if err := w.Create(ctx, p, client.DryRunAll); err != nil || p.Labels[v1alpha1.ClassLabel] == "" {
				return refusedWith(err, "class")
			}
			return nil
		})
		for _, o := range []client.Object{&arv1.MutatingAdmissionPolicyBinding{}, &arv1.ValidatingAdmissionPolicyBinding{}} {
			o.SetName("class-of-namespaces.touchstone.dev")
			if _, ok := o.(*arv1.ValidatingAdmissionPolicyBinding); ok {
				o.SetName("pods-of-namespaces.touchstone.dev")
			}
			w.must(w.Delete(ctx, o))
		}
		w.eventually("refused", func() error { return refusedWith(w.Create(ctx, pod("classy", "")), "and the pod has none") })
	})

	t.Run("compliance and images without a source", func(t *testing.T) {
		w.t = t
		w.must(w.Create(ctx, restored("class-of-namespaces.touchstone.dev")))
		w.must(w.Create(ctx, restored("pods-of-namespaces.touchstone.dev")))
		w.class("scanned", func(s *v1alpha1.TrustClassSpec) {
			s.Network.Isolation = v1alpha1.None
			s.Images.Compliance = &v1alpha1.ComplianceRequirement{Profile: "cis", MaxAge: metav1.Duration{Duration: time.Hour}}
		})
		w.eventually("scan", func() error {
			return refusedWith(w.Create(ctx, pod("pay", "scanned")), "which this controller cannot ask for")
		})
	})

	stop()
	w.eventually("no policy that opens everything is made when the controller is gone", func() error {
		return refusedWith(w.Create(ctx, w.policy("{podSelector: {}, ingress: [{}]}"), client.DryRunAll), "failed calling webhook")
	})
	for spec, opens := range map[string]bool{
		"{podSelector: {}}": false,
		"{podSelector: {}, ingress: [{ports: [{port: 443}]}]}":                                                                                       false,
		"{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}":                                                                                  false,
		"{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {a: b}}}]}]}":                                                         false,
		"{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/10}}]}]}":                                                                        false,
		"{podSelector: {}, egress: [{to: [{podSelector: {}}]}, {}]}":                                                                                 true,
		"{podSelector: {}, ingress: [{ports: [{protocol: TCP}]}]}":                                                                                   true,
		"{podSelector: {}, egress: [{ports: [{port: 1, endPort: 65535}]}]}":                                                                          true,
		"{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}":                                                                          true,
		"{podSelector: {}, egress: [{to: [{ipBlock: {cidr: '8000::/1'}}]}]}":                                                                         true,
		"{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}":                                                                            true,
		"{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {a: b}}}, {namespaceSelector: {matchExpressions: []}, podSelector: {}}]}]}": true,
	} {
		policy := w.policy(spec)
		err := w.Create(ctx, policy, client.DryRunAll)
		if opens {
			err = refusedWith(err, "failed calling webhook")
		}
		if err != nil {
			t.Errorf("without a controller, new policy %s: %v", spec, err)
		}
		alone := isolation.Missing(nil, []netv1.NetworkPolicy{*policy})
		if strings.Contains(alone, "allows all") && !opens {
			t.Errorf("policy %s: %s, and it is made without asking", spec, alone)
		}
	}
	w.eventually("refused again when the controller is gone", func() error { return refusedWith(w.Create(ctx, pod("pay", "open")), "failed calling webhook") })
}

// policy is a new NetworkPolicy of namespace pay.
func (w *world) policy(spec string) *netv1.NetworkPolicy {
	w.t.Helper()
	p := &netv1.NetworkPolicy{}
	p.Namespace, p.GenerateName = "pay", "p-"
	w.must(yaml.UnmarshalStrict([]byte(spec), &p.Spec))
	return p
}

// restored returns the binding of a policy.
func restored(name string) client.Object {
	for _, o := range admission.Objects(admission.Options{}) {
		if o.GetName() == name && strings.HasSuffix(o.GetObjectKind().GroupVersionKind().Kind, "Binding") {
			return o
		}
	}
	return nil
}

// TestBundle: certificates of other replicas stay, what has expired or is not ours goes, and the bundle does not grow for ever.
func TestBundle(t *testing.T) {
	now := time.Now()
	mine, err := newCertificate([]string{"a.b.svc"}, now)
	if err != nil {
		t.Fatal(err)
	}
	c := &certificates{current: mine, names: []string{"a.b.svc"}}
	count := func(b []byte) (n int) {
		for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
			n++
		}
		return n
	}
	other := &certificates{}
	if other.current, err = newCertificate([]string{"a.b.svc"}, now.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	b := c.bundle(other.bundle([]byte("garbage"), now), now)
	if got := count(b); got != 2 {
		t.Errorf("bundle of two replicas: %d certificates, want 2", got)
	}
	if again := c.bundle(b, now); string(again) != string(b) {
		t.Error("a bundle that is complete is changed")
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b)
	if _, err := mine.Leaf.Verify(x509.VerifyOptions{DNSName: "a.b.svc", Roots: pool}); err != nil {
		t.Errorf("the API server would not believe the certificate: %v", err)
	}
	if got := count(c.bundle(b, now.Add(validity-30*time.Minute))); got != 1 {
		t.Errorf("bundle after the other has expired: %d certificates, want 1", got)
	}
	for range 2 * maxBundle {
		fresh := &certificates{}
		if fresh.current, err = newCertificate([]string{"a.b.svc"}, now); err != nil {
			t.Fatal(err)
		}
		b = fresh.bundle(b, now)
	}
	if got := count(b); got != maxBundle {
		t.Errorf("bundle after many replicas: %d certificates, want %d", got, maxBundle)
	}
}

// TestRenewal: the next certificate is in the bundle before it is served.
func TestRenewal(t *testing.T) {
	now := time.Now()
	first, err := newCertificate([]string{"a"}, now)
	if err != nil {
		t.Fatal(err)
	}
	c := &certificates{current: first, names: []string{"a"}}
	step := func(at time.Duration, wantFirst, wantNext bool) {
		t.Helper()
		if err := c.renew(now.Add(at)); err != nil {
			t.Fatal(err)
		}
		if (c.current == first) != wantFirst || (c.next != nil) != wantNext {
			t.Errorf("after %s: first served %v, next waits %v, want %v and %v", at, c.current == first, c.next != nil, wantFirst, wantNext)
		}
	}
	step(0, true, false)
	step(renewal, true, true)
	step(renewal+settle/2, true, true)
	step(renewal+settle, false, false)
}
