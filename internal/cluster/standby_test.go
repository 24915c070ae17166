package cluster

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/protocol"
)

// recorder keeps what a replica asks the API server to change, its lease left out.
type recorder struct {
	mu     sync.Mutex
	writes []string
}

func (r *recorder) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		if req.Method != http.MethodGet && !strings.Contains(req.URL.Path, "/leases") {
			r.add(req.Method + " " + req.URL.Path)
		}
		return next.RoundTrip(req)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (r *recorder) add(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes = append(r.writes, what)
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string{}, r.writes...)
}

// recordedAIAS is an AIAS whose changes are recorded, too.
type recordedAIAS struct {
	*testAIAS
	r *recorder
}

func (a *recordedAIAS) SetPolicy(ctx context.Context, yaml []byte) (*protocol.Snapshot, error) {
	a.r.add("policy at AIAS")
	return a.testAIAS.SetPolicy(ctx, yaml)
}

func (a *recordedAIAS) SetTags(ctx context.Context, node string, tags map[string]string) (*protocol.TagState, error) {
	a.r.add("tags at AIAS")
	return a.testAIAS.SetTags(ctx, node, tags)
}

func (a *recordedAIAS) ClearTags(ctx context.Context, node string) (*protocol.TagState, error) {
	a.r.add("no tags at AIAS")
	return a.testAIAS.ClearTags(ctx, node)
}

// TestStandbyNeverWrites: a replica that does not lead changes nothing, neither in the cluster nor at AIAS, whatever happens; when it leads it does all of it.
func TestStandbyNeverWrites(t *testing.T) {
	w := newWorld(t)
	w.account()
	t.Cleanup(func() {
		_ = w.Delete(context.Background(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: leaderID, Namespace: "default"}})
	})
	elect := func(o *Options) { o.LeaderElection, o.Namespace = true, "default" }
	w.node("w1")
	w.node("w2")
	stop := w.run(elect)
	w.aias.say(w.aias.trusted("w1"))
	w.isTrusted("w1", true)
	var r recorder
	w.run(elect, func(o *Options) {
		o.Config = rest.CopyConfig(o.Config)
		o.Config.Wrap(r.wrap)
		o.AIAS = &recordedAIAS{w.aias, &r}
	})
	time.Sleep(2 * time.Second)

	happens := func(round int) {
		t.Helper()
		name := func(s string) string { return fmt.Sprintf("%s-%d", s, round) }
		w.class(name("regulated"), time.Second)
		w.pod(name("leaves"), "w1", name("regulated"))
		w.pod(name("waits"), "", name("regulated"), func(p *corev1.Pod) {
			p.Spec.NodeSelector = map[string]string{v1alpha1.ClassNodeLabelPrefix + name("regulated"): "true"}
		})
		w.tag(name("tags"), map[string]v1alpha1.TagValue{name("site"): "a"}, "w1")
		if err := w.policy("default", fmt.Sprintf(`{"attestation":{"interval":"30s","maxAge":"%dm"}}`, 10+round)); err != nil {
			t.Fatal(err)
		}
		w.aias.say(w.aias.trusted("w2"))
		w.isTrusted("w2", true)
		w.aias.say(w.aias.trusted("w1", fallen(4, "miner")))
		w.isTrusted("w1", false)
		w.request(name("w3"), nil)
		w.aias.say(w.aias.trusted("w1"))
		w.isTrusted("w1", true)
		w.aias.send(protocol.NodeResult{Node: "w2", Removed: true})
		w.isTrusted("w2", false)
	}
	happens(0)
	time.Sleep(2 * time.Second) // what is late
	if got := r.all(); len(got) > 0 {
		t.Errorf("a replica that stands by wrote %q, want nothing", got)
	}
	if err := w.DeleteAllOf(context.Background(), &v1alpha1.TrustPolicy{}); err != nil {
		t.Fatal(err)
	}
	stop()
	w.eventually("the other one leads", func() bool { return len(r.all()) > 0 })
	happens(1)
	for _, want := range []string{"PATCH /api/v1/nodes/w1", "PATCH /api/v1/nodes/w1/status", "PATCH /apis/touchstone.dev/v1alpha1/nodetrusts/w2/status", "policy at AIAS", "tags at AIAS",
		"POST /api/v1/namespaces/default/pods/leaves-1/eviction"} {
		w.eventually("the leader writes "+want, func() bool { return strings.Contains(strings.Join(r.all(), "\n")+"\n", want+"\n") })
	}
}
