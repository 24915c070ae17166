package cluster

import (
	"context"
	"maps"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/policy"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
)

func (w *world) policy(name, spec string) error {
	tp := &v1alpha1.TrustPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: runtime.RawExtension{Raw: []byte(spec)}}
	return w.Create(context.Background(), tp)
}

func (w *world) accepted(name, status, message string) {
	w.t.Helper()
	var last metav1.Condition
	defer func() {
		if w.t.Failed() {
			w.t.Logf("condition of %s: %+v", name, last)
		}
	}()
	w.eventually("Accepted of "+name+" is "+status, func() bool {
		tp := &v1alpha1.TrustPolicy{}
		if err := w.Get(context.Background(), types.NamespacedName{Name: name}, tp); err != nil {
			w.t.Fatal(err)
		}
		c := meta.FindStatusCondition(tp.Status.Conditions, v1alpha1.ConditionAccepted)
		if c != nil {
			last = *c
		}
		return c != nil && string(c.Status) == status && strings.Contains(c.Message, message)
	})
}

// TestPolicyIsCarried: AIAS gets the policy of the cluster, once; its refusal is said in words; other names and wrong words do not get there.
func TestPolicyIsCarried(t *testing.T) {
	w := newWorld(t)
	w.run()
	if err := w.policy("default", `{"attestation":{"interval":"30s","maxAge":"10m"},"exceptions":[{"rule":"kernel.initrd","allow":"fail","until":"2030-01-31"}]}`); err != nil {
		t.Fatal(err)
	}
	w.accepted("default", "True", "")
	p, err := policy.Parse(w.aias.policy)
	if err != nil || p.Spec.Attestation.MaxAge.Minutes() != 10 || len(p.Spec.Exceptions) != 1 || p.Metadata.Name != "default" {
		t.Errorf("policy at AIAS: got %+v, %v", p, err)
	}
	if err := w.policy("second", `{}`); err != nil {
		t.Fatal(err)
	}
	w.accepted("second", "False", "only the TrustPolicy named default counts")
	if err := w.policy("words", `{"firmware":{"known":"perhaps"}}`); err == nil {
		t.Error("the API server took a word that the policy does not know")
	}
	w.aias.refuse = &protocol.Problem{Title: "the policy is in a file", Status: 409, Remedy: "change the file"}
	tp := &v1alpha1.TrustPolicy{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	change := func(spec string) {
		t.Helper()
		w.edit(tp, func() { tp.Spec.Raw = []byte(spec) })
	}
	change(`{"secureBoot":{"dbx":"any"}}`)
	w.accepted("default", "False", "the policy is in a file")
	change(`{"attestation":{"interval":"5m","maxAge":"1m"}}`)
	w.accepted("default", "False", "want at least twice the interval")
	if len(w.aias.acts) != 1 {
		t.Errorf("AIAS was asked to change %q, want one policy", w.aias.acts)
	}
}

// TestClassesAreCarried: AIAS gives keys by what the classes of the cluster demand: now, after a change, and not any more when the class is gone.
func TestClassesAreCarried(t *testing.T) {
	w := newWorld(t)
	w.run()
	ctx := context.Background()
	tc := &v1alpha1.TrustClass{ObjectMeta: metav1.ObjectMeta{Name: "carried"}, Spec: v1alpha1.TrustClassSpec{
		Levels: []int32{1, 5}, MaxResultAge: &metav1.Duration{Duration: 10 * time.Minute}, Tags: map[string]v1alpha1.TagValues{"country": {"de"}},
	}}
	if err := w.Create(ctx, tc); err != nil {
		t.Fatal(err)
	}
	want := func(text string) {
		t.Helper()
		w.eventually("class at AIAS is "+text, func() bool { return w.aias.classOf("carried") == text })
	}
	want(`{"levels":[1,5],"warnings":"Allow","softwareTPM":"Deny","maxResultAge":"10m0s","tags":{"country":["de"]}}`)
	w.edit(tc, func() { tc.Spec.Warnings, tc.Spec.MaxResultAge, tc.Spec.Tags = v1alpha1.Deny, nil, nil })
	want(`{"levels":[1,5],"warnings":"Deny","softwareTPM":"Deny"}`)
	if err := w.Delete(ctx, tc); err != nil {
		t.Fatal(err)
	}
	want("")
}

func (w *world) tag(name string, tags map[string]v1alpha1.TagValue, nodes ...string) *v1alpha1.AssetTag {
	w.t.Helper()
	at := &v1alpha1.AssetTag{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.AssetTagSpec{Nodes: nodes, Tags: tags}}
	if err := w.Create(context.Background(), at); err != nil {
		w.t.Fatal(err)
	}
	return at
}

func (w *world) tagState(name, condition, status, message string) {
	w.t.Helper()
	w.eventually(condition+" of "+name+" is "+status+": "+message, func() bool {
		at := &v1alpha1.AssetTag{}
		if err := w.Get(context.Background(), types.NamespacedName{Name: name}, at); err != nil {
			w.t.Fatal(err)
		}
		c := meta.FindStatusCondition(at.Status.Conditions, condition)
		return c != nil && string(c.Status) == status && strings.Contains(c.Message, message)
	})
}

// TestTagsAreCarried: AIAS issues what all AssetTags together say of a node; contradictions are said, not decided; deleting clears.
func TestTagsAreCarried(t *testing.T) {
	w := newWorld(t)
	w.run()
	w.node("w1")
	w.aias.say(w.aias.trusted("w1"))
	w.isTrusted("w1", true)
	has := func(node string, want map[string]string) {
		t.Helper()
		w.eventually("tags of "+node, func() bool { return maps.Equal(w.aias.tagsOf(node), want) })
	}
	w.aias.tags["by-hand"] = map[string]string{"set": "with-the-cli"}
	w.tag("country", map[string]v1alpha1.TagValue{"country": "de"}, "w1", "w2")
	has("w1", map[string]string{"country": "de"})
	w.tagState("country", v1alpha1.ConditionAccepted, "False", "w2: it is not enrolled")
	w.tagState("country", v1alpha1.ConditionProven, "False", "2 of 2")
	w.aias.say(w.aias.trusted("w2"))
	has("w2", map[string]string{"country": "de"})
	w.tagState("country", v1alpha1.ConditionAccepted, "True", "")

	site := w.tag("site", map[string]v1alpha1.TagValue{"country": "fr", "site": "a"}, "w1")
	has("w1", map[string]string{"site": "a"})
	w.tagState("site", v1alpha1.ConditionAccepted, "False", "tag country of node w1 is said differently by country and site")
	w.tagState("country", v1alpha1.ConditionAccepted, "False", "said differently")
	if err := w.Delete(context.Background(), site); err != nil {
		t.Fatal(err)
	}
	has("w1", map[string]string{"country": "de"})
	w.tagState("country", v1alpha1.ConditionAccepted, "True", "")
	w.eventually("AssetTag site is gone", func() bool {
		return w.Get(context.Background(), types.NamespacedName{Name: "site"}, &v1alpha1.AssetTag{}) != nil
	})

	for _, node := range []string{"w1", "w2"} {
		if node == "w2" {
			w.node("w2")
		}
		w.aias.say(w.aias.trusted(node, func(r *result.Result) { r.Tags = map[string]string{"country": "de"} }))
	}
	w.tagState("country", v1alpha1.ConditionProven, "True", "")
	at := &v1alpha1.AssetTag{}
	if err := w.Get(context.Background(), types.NamespacedName{Name: "country"}, at); err != nil {
		t.Fatal(err)
	}
	if err := w.Patch(context.Background(), at, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"nodes":["w2"]}}`))); err != nil {
		t.Fatal(err)
	}
	has("w1", nil)
	has("w2", map[string]string{"country": "de"})
	if err := w.Delete(context.Background(), at); err != nil {
		t.Fatal(err)
	}
	has("w2", nil)
	has("by-hand", map[string]string{"set": "with-the-cli"})
}

// TestTagsWhileAIASIsAway: an AssetTag that is deleted while nobody knows what AIAS has stays until its tags are cleared there; and tags that AIAS has lost are issued again.
func TestTagsWhileAIASIsAway(t *testing.T) {
	w := newWorld(t)
	stop := w.run()
	w.node("w1")
	w.aias.say(w.aias.trusted("w1"))
	w.isTrusted("w1", true)
	at := w.tag("country", map[string]v1alpha1.TagValue{"country": "de"}, "w1")
	want := map[string]string{"country": "de"}
	issued := func() bool { return maps.Equal(w.aias.tagsOf("w1"), want) }
	w.eventually("tags are issued", issued)
	w.tagState("country", v1alpha1.ConditionAccepted, "True", "")

	w.aias.setDown(true)
	w.aias.mu.Lock()
	delete(w.aias.tags, "w1") // restored from an old copy
	w.aias.mu.Unlock()
	w.aias.setDown(false)
	w.eventually("tags that were lost are issued again", issued)

	stop()
	w.aias.setDown(true)
	if err := w.Delete(context.Background(), at); err != nil {
		t.Fatal(err)
	}
	w.run()
	there := func() bool {
		return w.Get(context.Background(), types.NamespacedName{Name: "country"}, &v1alpha1.AssetTag{}) == nil
	}
	w.never("the AssetTag is let go while AIAS has its tags", 4*time.Second, func() bool { return !there() })
	w.aias.setDown(false)
	w.eventually("tags are cleared, and the AssetTag is gone", func() bool { return len(w.aias.tagsOf("w1")) == 0 && !there() })
}
