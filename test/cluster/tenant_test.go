//go:build cluster

package cluster

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
)

// tenant is a namespace whose users run pods of a class: alice may use the class, mallory may do all else that alice may.
type tenant struct {
	*world
	name  string
	class string
	alice client.Client
}

// as returns a client of somebody else, by impersonation, as the API server knows users.
func (s *world) as(t *testing.T, user string, groups ...string) client.Client {
	t.Helper()
	config := rest.CopyConfig(s.REST)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: append(groups, "system:authenticated")}
	c, err := NewClient(config)
	must(t, err)
	return c
}

// newTenant makes a namespace that enforces Pod Security restricted, with an isolating NetworkPolicy, and removes it after the test.
func (s *world) newTenant(t *testing.T, name, class string) *tenant {
	t.Helper()
	ctx := t.Context()
	use := name + "-use"
	subjects := []rbac.Subject{{Kind: rbac.UserKind, APIGroup: rbac.GroupName, Name: "alice"}, {Kind: rbac.ServiceAccountKind, Namespace: name, Name: "app"}}
	for _, o := range []client.Object{
		&core.Namespace{ObjectMeta: meta.ObjectMeta{Name: name, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}}},
		&core.ServiceAccount{ObjectMeta: objectMeta(name, "app")},
		&networking.NetworkPolicy{ObjectMeta: objectMeta(name, "isolated"), Spec: networking.NetworkPolicySpec{
			PolicyTypes: []networking.PolicyType{networking.PolicyTypeIngress, networking.PolicyTypeEgress},
		}},
		&rbac.RoleBinding{ObjectMeta: objectMeta(name, "tenants"), RoleRef: rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "ClusterRole", Name: "admin"}, Subjects: []rbac.Subject{
			{Kind: rbac.UserKind, APIGroup: rbac.GroupName, Name: "alice"}, {Kind: rbac.UserKind, APIGroup: rbac.GroupName, Name: "mallory"},
		}},
		&rbac.ClusterRole{ObjectMeta: objectMeta("", use), Rules: []rbac.PolicyRule{{
			APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"trustclasses"}, ResourceNames: []string{class}, Verbs: []string{v1alpha1.UseVerb},
		}}},
		&rbac.ClusterRoleBinding{ObjectMeta: objectMeta("", use), RoleRef: rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "ClusterRole", Name: use}, Subjects: subjects},
	} {
		must(t, s.Client.Create(ctx, o))
		if o.GetNamespace() == "" {
			t.Cleanup(func() { _ = s.Client.Delete(context.Background(), o) })
		}
	}
	return &tenant{world: s, name: name, class: class, alice: s.as(t, "alice")}
}

// onWorker has a pod run on one worker, or nowhere.
func onWorker(w *Worker) func(*core.Pod) {
	return func(p *core.Pod) { p.Spec.NodeSelector = map[string]string{core.LabelHostname: w.Name} }
}

// pod is a pod as the class wants it.
func (n *tenant) pod(name string, change ...func(*core.Pod)) *core.Pod {
	var grace int64 = 1
	yes, no, user := true, false, int64(65532)
	p := &core.Pod{
		ObjectMeta: meta.ObjectMeta{Namespace: n.name, Name: name, Labels: map[string]string{v1alpha1.ClassLabel: n.class, "app": name}},
		Spec: core.PodSpec{
			ServiceAccountName: "app", TerminationGracePeriodSeconds: &grace,
			SecurityContext: &core.PodSecurityContext{RunAsNonRoot: &yes, RunAsUser: &user, SeccompProfile: &core.SeccompProfile{Type: core.SeccompProfileTypeRuntimeDefault}},
			Containers: []core.Container{{
				Name: "c", Image: n.Busybox, ImagePullPolicy: core.PullNever, Command: []string{"sh", "-c", "trap exit TERM; while :; do sleep 1; done"},
				SecurityContext: &core.SecurityContext{AllowPrivilegeEscalation: &no, Capabilities: &core.Capabilities{Drop: []core.Capability{"ALL"}}},
			}},
		},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

// deployment is a deployment of such pods.
func (n *tenant) deployment(name string, replicas int32) *apps.Deployment {
	p := n.pod(name)
	labels := map[string]string{"app": name}
	return &apps.Deployment{ObjectMeta: objectMeta(n.name, name), Spec: apps.DeploymentSpec{
		Replicas: &replicas, Selector: &meta.LabelSelector{MatchLabels: labels}, Template: core.PodTemplateSpec{ObjectMeta: meta.ObjectMeta{Labels: p.Labels}, Spec: p.Spec},
	}}
}

// running returns the pods of an app that run and are not about to go, by node.
func (c *Cluster) running(ctx context.Context, namespace, app string) (map[string][]string, error) {
	var list core.PodList
	if err := c.Client.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels{"app": app}); err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, p := range list.Items {
		if p.Status.Phase == core.PodRunning && p.DeletionTimestamp == nil {
			out[p.Spec.NodeName] = append(out[p.Spec.NodeName], p.Name)
		}
	}
	return out, nil
}

// on returns the pods on a node that have a class, whatever their state.
func (c *Cluster) on(ctx context.Context, node string) ([]string, error) {
	var list core.PodList
	if err := c.Client.List(ctx, &list, client.HasLabels{v1alpha1.ClassLabel}); err != nil {
		return nil, err
	}
	var out []string
	for _, p := range list.Items {
		if p.Spec.NodeName == node {
			out = append(out, p.Namespace+"/"+p.Name)
		}
	}
	return out, nil
}

// refused checks that an attempt was refused with the words, and shows them.
func (s *world) refused(t *testing.T, what string, err error, words string) {
	t.Helper()
	switch {
	case err == nil:
		t.Errorf("%s: accepted, want a refusal with %q", what, words)
	case !strings.Contains(err.Error(), words):
		t.Errorf("%s: refused with %q, want %q in it", what, err, words)
	default:
		say("          refused: %s: %.150s", what, err)
	}
}

// event waits for an event about an object whose note has all the words.
func (s *world) event(ctx context.Context, namespace, object string, words ...string) (string, error) {
	var found string
	err := until(ctx, fmt.Sprintf("event of %s with %q", object, words), 60*time.Second, nil, func(ctx context.Context) error {
		var list core.EventList
		if err := s.Client.List(ctx, &list, client.InNamespace(namespace)); err != nil {
			return err
		}
		var seen []string
		for _, e := range list.Items {
			if e.InvolvedObject.Name != object {
				continue
			}
			missing := false
			for _, word := range words {
				missing = missing || !strings.Contains(e.Message, word)
			}
			if !missing {
				found = e.Reason + ": " + e.Message
				return nil
			}
			seen = append(seen, e.Message)
		}
		return fmt.Errorf("its events are %q", seen)
	})
	return found, err
}
