package admission

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
)

var (
	exists    = corev1.TolerationOpExists
	ourLabel  = v1alpha1.ClassNodeLabelPrefix + "regulated"
	ourTaint  = v1alpha1.UntrustedTaint
	digestOf  = "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	noExecute = corev1.TaintEffectNoExecute
)

// TestNewPodBypasses: each is tried at CREATE.
func TestNewPodBypasses(t *testing.T) {
	w := newWorld(t)
	plain, classy := w.namespace(nil), w.namespace(map[string]string{v1alpha1.ClassLabel: "regulated"})
	tolerate := func(tol corev1.Toleration) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{tol} }
	}
	partial := func(tol corev1.Toleration) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Labels[v1alpha1.ClassLabel], p.Spec.Tolerations = "partial", []corev1.Toleration{tol}
		}
	}
	tests := []struct {
		name, user, ns string
		change         func(*corev1.Pod)
		words          string // of the refusal; "" means accepted
	}{
		{"as it should be", alice, plain, nil, ""},
		{"user without use", mallory, plain, nil, "user mallory may not use trust class regulated"},
		{"user without use, class by the namespace", mallory, classy, func(p *corev1.Pod) { p.Labels = nil }, "user mallory may not use trust class regulated"},
		{"service account without use", alice, plain, func(p *corev1.Pod) { p.Spec.ServiceAccountName = "default" }, "service account " + plain + "/default may not use trust class regulated"},
		{"service account left out", alice, plain, func(p *corev1.Pod) { p.Spec.ServiceAccountName = "" }, "service account " + plain + "/default may not use trust class regulated"},
		{"another class than the namespace's", alice, classy, func(p *corev1.Pod) {
			p.Labels[v1alpha1.ClassLabel], p.Spec.Containers[0].Image = "lenient", "mirror.example/x"
		}, "namespace " + classy + " have the trust class regulated"},
		{"class that does not exist", admin, plain, func(p *corev1.Pod) { p.Labels[v1alpha1.ClassLabel] = "nothing" }, `no TrustClass "nothing"`},
		{"empty class", admin, plain, func(p *corev1.Pod) { p.Labels[v1alpha1.ClassLabel] = "" }, `no TrustClass ""`},
		{"empty class in a namespace with one", alice, classy, func(p *corev1.Pod) { p.Labels[v1alpha1.ClassLabel] = "" }, ""},
		{"class with a name that no class can have", admin, plain, func(p *corev1.Pod) { p.Labels[v1alpha1.ClassLabel] = strings.Repeat("Aa", 30) }, "no TrustClass"},
		{"spec.nodeName", alice, plain, func(p *corev1.Pod) { p.Spec.NodeName = "w1" }, "remove spec.nodeName"},
		{"spec.nodeName in a namespace with a class", alice, classy, func(p *corev1.Pod) { p.Labels = nil; p.Spec.NodeName = "w1" }, "remove spec.nodeName"},
		{"node selector says false", alice, plain, func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{ourLabel: "false"} }, ""},
		{"another scheduler: selectors hold for it, too", alice, plain, func(p *corev1.Pod) { p.Spec.SchedulerName = "mine" }, ""},
		{"toleration of our taint without end", alice, plain, tolerate(corev1.Toleration{Key: ourTaint, Operator: exists}), "must not tolerate"},
		{"toleration of our taint, for long", alice, plain, tolerate(corev1.Toleration{Key: ourTaint, Operator: exists, Effect: noExecute, TolerationSeconds: new(int64(3600))}), "must not tolerate"},
		{"toleration of our taint by its empty value", alice, plain, tolerate(corev1.Toleration{Key: ourTaint, Operator: corev1.TolerationOpEqual, Effect: noExecute, TolerationSeconds: new(int64(1))}), "must not tolerate"},
		{"toleration of our taint, shorter than the grace", alice, plain, tolerate(corev1.Toleration{Key: ourTaint, Operator: exists, Effect: noExecute, TolerationSeconds: new(int64(5))}), ""},
		{"toleration of our taint, NoSchedule", alice, plain, tolerate(corev1.Toleration{Key: ourTaint, Operator: exists, Effect: corev1.TaintEffectNoSchedule}), "must not tolerate"},
		{"toleration of everything", alice, plain, tolerate(corev1.Toleration{Operator: exists}), "must not tolerate"},
		{"toleration of every NoExecute", alice, plain, tolerate(corev1.Toleration{Operator: exists, Effect: noExecute}), "must not tolerate"},
		{"toleration of every NoSchedule", alice, plain, tolerate(corev1.Toleration{Operator: exists, Effect: corev1.TaintEffectNoSchedule}), "must not tolerate"},
		{"toleration of a level, in a class of all levels", alice, plain, tolerate(corev1.Toleration{Key: ourTaint, Operator: corev1.TolerationOpEqual, Value: "5", Effect: noExecute}), "must not tolerate"},
		{"class of some levels: a level that it asks for", alice, plain, partial(corev1.Toleration{Key: ourTaint, Operator: corev1.TolerationOpEqual, Value: "3-5", Effect: noExecute}), "must not tolerate"},
		{"class of some levels: no result", alice, plain, partial(corev1.Toleration{Key: ourTaint, Operator: corev1.TolerationOpEqual, Effect: noExecute}), "must not tolerate"},
		{"class of some levels: the operator left out", alice, plain, partial(corev1.Toleration{Key: ourTaint, Value: "5", Effect: noExecute}), "must not tolerate"},
		{"class of some levels: every value, without end", alice, plain, partial(corev1.Toleration{Key: ourTaint, Operator: exists, Effect: noExecute}), "must not tolerate"},
		{"class of some levels: every value, for long", alice, plain, partial(corev1.Toleration{Key: ourTaint, Operator: exists, Effect: noExecute, TolerationSeconds: new(int64(31))}), "must not tolerate"},
		{"class of some levels: every effect", alice, plain, partial(corev1.Toleration{Key: ourTaint, Operator: exists}), "must not tolerate"},
		{"class of some levels: every effect of a value", alice, plain, partial(corev1.Toleration{Key: ourTaint, Operator: corev1.TolerationOpEqual, Value: "5"}), "must not tolerate"},
		{"class of some levels: every taint", alice, plain, partial(corev1.Toleration{Operator: exists}), "must not tolerate"},
		{"class of some levels: every NoSchedule", alice, plain, partial(corev1.Toleration{Operator: exists, Effect: corev1.TaintEffectNoSchedule}), "must not tolerate"},
		{"class of some levels: what it is given anyway", alice, plain, partial(corev1.Toleration{Key: ourTaint, Operator: corev1.TolerationOpEqual, Value: "5", Effect: noExecute}), ""},
		{"class of some levels, user without use", mallory, plain, partial(corev1.Toleration{Key: "gpu", Operator: exists}), "user mallory may not use trust class partial"},
		{"class of some levels in a namespace with one of all", alice, classy, partial(corev1.Toleration{Key: "gpu", Operator: exists}), "namespace " + classy + " have the trust class regulated"},
		{"toleration of something else", alice, plain, tolerate(corev1.Toleration{Key: "gpu", Operator: exists}), ""},
		{"DaemonSet pod: affinity by field", replicas, plain, func(p *corev1.Pod) {
			p.Spec.Tolerations = []corev1.Toleration{{Key: "node.kubernetes.io/not-ready", Operator: exists, Effect: noExecute}}
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: "In", Values: []string{"w1"}}}}},
			}}}
		}, ""},
		{"image by tag", alice, plain, func(p *corev1.Pod) { p.Spec.Containers[0].Image = "registry.example/app:1" }, "not so: registry.example/app:1"},
		{"init container by tag", alice, plain, func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{*p.Spec.Containers[0].DeepCopy()}
			p.Spec.InitContainers[0].Name, p.Spec.InitContainers[0].Image = "init", "registry.example/init"
		}, "not so: registry.example/init"},
		{"image volume by tag", alice, plain, func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "registry.example/data:1"}}}}
		}, "not so: registry.example/data:1"},
		{"short digest", alice, plain, func(p *corev1.Pod) { p.Spec.Containers[0].Image = "app@sha256:01" }, "not so: app@sha256:01"},
	}
	for _, tt := range tests {
		err := w.as(tt.user).Create(ctx, pod(tt.ns, tt.change))
		if tt.words == "" {
			w.accepted(tt.name, err)
		} else {
			w.refused(tt.name, err, tt.words)
		}
	}
}

// TestPodSecurity: the namespace must enforce the class's level, as it is known today.
func TestPodSecurity(t *testing.T) {
	w := newWorld(t)
	tests := []struct {
		enforce, version string
		words            string
	}{
		{"restricted", "", ""},
		{"restricted", "latest", ""},
		{"restricted", "v1.37", ""},
		{"restricted", "v1.25", ""},
		{"restricted", "v1.0", "enforces restricted (v1.0)"},
		{"restricted", "v1.24", "enforces restricted (v1.24)"},
		{"baseline", "", "wants Pod Security restricted or stricter, the namespace enforces baseline"},
		{"privileged", "", "enforces privileged"},
		{"", "", "enforces privileged"},
	}
	for _, tt := range tests {
		ns := w.namespace(nil)
		n := &corev1.Namespace{}
		w.must(w.as(admin).Get(ctx, client.ObjectKey{Name: ns}, n))
		n.Labels["pod-security.kubernetes.io/enforce"] = tt.enforce
		if tt.enforce == "" {
			delete(n.Labels, "pod-security.kubernetes.io/enforce")
		}
		if tt.version != "" {
			n.Labels["pod-security.kubernetes.io/enforce-version"] = tt.version
		}
		w.must(w.as(admin).Update(ctx, n))
		name := tt.enforce + " " + tt.version
		if tt.words == "" {
			w.accepted(name, w.as(alice).Create(ctx, pod(ns, nil)))
			continue
		}
		w.eventually(name, func() error { // the API server's own view of the namespace follows
			if err := w.as(alice).Create(ctx, pod(ns, nil)); err == nil || !strings.Contains(err.Error(), tt.words) {
				return errNotRefused(err)
			}
			return nil
		})
	}
}

func errNotRefused(err error) error { return &notRefused{err} }

type notRefused struct{ err error }

func (e *notRefused) Error() string {
	if e.err == nil {
		return "accepted"
	}
	return "refused otherwise: " + e.err.Error()
}

// TestStaticPods: a kubelet shows its static pods by mirror pods; those cannot have a class.
func TestStaticPods(t *testing.T) {
	w := newWorld(t)
	plain, classy := w.namespace(nil), w.namespace(map[string]string{v1alpha1.ClassLabel: "regulated"})
	node := &corev1.Node{}
	node.Name = "w1"
	w.must(client.IgnoreAlreadyExists(w.as(admin).Create(ctx, node)))
	mirror := func(ns string) *corev1.Pod {
		return pod(ns, func(p *corev1.Pod) {
			p.GenerateName, p.Name = "", "static-w1"
			p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "w1", UID: node.UID, Controller: new(true)}}
			p.Spec.ServiceAccountName, p.Spec.NodeName = "", "w1"
			p.Spec.Tolerations = []corev1.Toleration{{Operator: exists, Effect: noExecute}}
		})
	}
	w.must(w.as(admin).Get(ctx, client.ObjectKey{Name: "w1"}, node))
	w.refused("mirror pod with a class", w.as(kubelet).Create(ctx, mirror(plain)), "static pods cannot have a trust class")
	p := mirror(classy)
	p.Labels = nil
	w.refused("mirror pod in a namespace with a class", w.as(kubelet).Create(ctx, p), "static pods cannot have a trust class")
	p = mirror(plain)
	p.Labels = nil
	w.accepted("mirror pod without a class", w.as(kubelet).Create(ctx, p))
}

// TestLivingPods: what was decided at CREATE stays.
func TestLivingPods(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(nil)
	tests := []struct {
		name   string
		change func(*corev1.Pod)
		words  string
	}{
		{"another class", func(p *corev1.Pod) { p.Labels[v1alpha1.ClassLabel] = "free" }, "decided when it is made"},
		{"class removed", func(p *corev1.Pod) { delete(p.Labels, v1alpha1.ClassLabel) }, "decided when it is made"},
		{"all labels removed", func(p *corev1.Pod) { p.Labels = nil }, "decided when it is made"},
		{"image changed", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "other" + digestOf }, "images of a pod with a trust class cannot be changed"},
		{"toleration of everything added", func(p *corev1.Pod) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Operator: exists})
		}, "must not tolerate"},
		{"toleration of our taint added", func(p *corev1.Pod) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: ourTaint, Operator: exists, Effect: noExecute})
		}, "must not tolerate"},
		{"toleration of our taint prolonged", func(p *corev1.Pod) {
			for i := range p.Spec.Tolerations {
				if p.Spec.Tolerations[i].Key == ourTaint {
					p.Spec.Tolerations[i].TolerationSeconds = new(int64(86400))
				}
			}
		}, "must not tolerate"},
		{"toleration of a level added", func(p *corev1.Pod) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: ourTaint, Operator: corev1.TolerationOpEqual, Value: "5", Effect: noExecute})
		}, "must not tolerate"},
		{"toleration of NoSchedule added", func(p *corev1.Pod) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: ourTaint, Operator: exists, Effect: corev1.TaintEffectNoSchedule})
		}, "must not tolerate"},
		{"node selector removed", func(p *corev1.Pod) { p.Spec.NodeSelector = nil }, "Forbidden"},
		{"node selector removed from a gated pod", func(p *corev1.Pod) { delete(p.Spec.NodeSelector, ourLabel) }, "only additions to spec.nodeSelector"},
		{"node selector of a gated pod weakened", func(p *corev1.Pod) { p.Spec.NodeSelector[ourLabel] = "false" }, "only additions to spec.nodeSelector"},
		{"another label", func(p *corev1.Pod) { p.Labels["x"] = "y" }, ""},
		{"another toleration", func(p *corev1.Pod) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: "x", Operator: exists})
		}, ""},
		{"a gated pod's selector narrowed", func(p *corev1.Pod) { p.Spec.NodeSelector["disk"] = "fast" }, ""},
		{"gate opened", func(p *corev1.Pod) { p.Spec.SchedulingGates = nil }, ""},
	}
	for _, tt := range tests {
		p := pod(ns, func(p *corev1.Pod) {
			if strings.Contains(tt.name, "gate") {
				p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "x"}}
			}
		})
		w.must(w.as(alice).Create(ctx, p))
		tt.change(p)
		err := w.as(alice).Update(ctx, p)
		if tt.words == "" {
			w.accepted(tt.name, err)
		} else {
			w.refused(tt.name, err, tt.words)
		}
	}

	late := pod(ns, func(p *corev1.Pod) { p.Labels = nil })
	w.must(w.as(mallory).Create(ctx, late))
	late.Labels = map[string]string{v1alpha1.ClassLabel: "regulated"}
	w.refused("class added to a running pod", w.as(alice).Update(ctx, late), "decided when it is made")
}

// TestSubresources: class labels do not move through subresources; status and size are not touched.
func TestSubresources(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(nil)
	p := pod(ns, nil)
	w.must(w.as(alice).Create(ctx, p))
	for _, sub := range []string{"status", "resize", "ephemeralcontainers"} {
		q := p.DeepCopy()
		q.Labels[v1alpha1.ClassLabel] = "free"
		err := w.as(alice).SubResource(sub).Update(ctx, q)
		w.must(w.as(alice).Get(ctx, client.ObjectKeyFromObject(p), p))
		if got := p.Labels[v1alpha1.ClassLabel]; got != "regulated" {
			t.Errorf("%s: class label became %q (error %v)", sub, got, err)
		}
	}
	p.Status.Phase = corev1.PodRunning
	w.accepted("status", w.as(alice).Status().Update(ctx, p))
	p.Spec.Containers[0].Resources.Requests = nil
	w.accepted("resize", w.as(alice).SubResource("resize").Update(ctx, p))

	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{debugger(pinnedImage)}
	w.refused("ephemeral container", w.as(alice).SubResource("ephemeralcontainers").Update(ctx, p), "allows no ephemeral containers")
}

func debugger(image string) corev1.EphemeralContainer {
	return corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		Name: "debug", Image: image, SecurityContext: podSpec().Containers[0].SecurityContext,
	}}
}

// TestLenientClass: what a class allows is allowed, what it names is demanded.
func TestLenientClass(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(map[string]string{"pod-security.kubernetes.io/enforce": "privileged"})
	lenient := func(image string) *corev1.Pod {
		return pod(ns, func(p *corev1.Pod) {
			p.Labels[v1alpha1.ClassLabel] = "lenient"
			p.Spec.Containers[0].Image = image
		})
	}
	for image, ok := range map[string]bool{
		"registry.example/team/app:1":          true,
		"registry.example/team/a/b" + digestOf: true,
		"registry.example/tool":                true,
		"registry.example/tool:1":              true,
		"registry.example/tool" + digestOf:     true,
		"registry.example/tool/sub:1":          true,
		"mirror.example/x":                     true,
		"registry.example/tool-evil:1":         false,
		"registry.example/teams/app:1":         false,
		"mirror.example.evil/x":                false,
		"mirror.example" + digestOf:            false,
		"mirror.example":                       false,
		"mirror.example:5000/x":                false,
		"app":                                  false,
		"evil/registry.example/team/app":       false,
	} {
		p := lenient(image)
		err := w.as(alice).Create(ctx, p)
		if !ok {
			w.refused(image, err, "wants images from registry.example/team/, registry.example/tool, mirror.example; not so: "+image)
			continue
		}
		w.accepted(image, err)
		for _, tol := range p.Spec.Tolerations {
			if tol.Key == ourTaint && *tol.TolerationSeconds != 5 {
				t.Errorf("grace of the toleration: %d s, want 5", *tol.TolerationSeconds)
			}
		}
	}
	p := lenient("mirror.example/x")
	w.must(w.as(alice).Create(ctx, p))
	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{debugger("evil/x")}
	w.refused("ephemeral container from elsewhere", w.as(alice).SubResource("ephemeralcontainers").Update(ctx, p.DeepCopy()), "not so: evil/x")
	p.Spec.EphemeralContainers[0].Image = "mirror.example/debug"
	w.refused("ephemeral container by mallory", w.as(mallory).SubResource("ephemeralcontainers").Update(ctx, p.DeepCopy()), "user mallory may not use trust class lenient")
	w.accepted("ephemeral container", w.as(alice).SubResource("ephemeralcontainers").Update(ctx, p))
}

// TestBindings: only schedulers place pods, whatever RBAC says, by either way.
func TestBindings(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(nil)
	node := &corev1.Node{}
	node.Name = "w1"
	w.must(client.IgnoreAlreadyExists(w.as(admin).Create(ctx, node)))
	p := pod(ns, nil)
	w.must(w.as(alice).Create(ctx, p))
	bind := func() *corev1.Binding {
		b := &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "w1"}}
		b.Namespace, b.Name = ns, p.Name
		return b
	}
	for _, user := range []string{alice, mallory, admin, kubelet, replicas} {
		if user == kubelet {
			w.refused(user, w.as(user).SubResource("binding").Create(ctx, p, bind()), "forbidden")
			continue
		}
		w.refused(user+", pods/binding", w.as(user).SubResource("binding").Create(ctx, p, bind()), "not one of the schedulers")
		w.refused(user+", bindings", w.as(user).Create(ctx, bind()), "not one of the schedulers")
	}
	w.accepted(scheduler, w.as(scheduler).SubResource("binding").Create(ctx, p, bind()))
}

// TestTemplates: who writes a template must be allowed to use its class; who changes something else need not.
func TestTemplates(t *testing.T) {
	w := newWorld(t)
	plain, classy := w.namespace(nil), w.namespace(map[string]string{v1alpha1.ClassLabel: "regulated"})
	template := func(class string) corev1.PodTemplateSpec {
		t := corev1.PodTemplateSpec{Spec: podSpec()}
		t.Labels = map[string]string{"app": "x"}
		if class != "" {
			t.Labels[v1alpha1.ClassLabel] = class
		}
		return t
	}
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "x"}}
	batch := func(class string) batchv1.JobSpec {
		t := template(class)
		t.Spec.RestartPolicy = corev1.RestartPolicyNever
		return batchv1.JobSpec{Template: t}
	}
	kinds := map[string]func(class string) client.Object{
		"Deployment": func(c string) client.Object {
			return &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Selector: selector, Template: template(c)}}
		},
		"ReplicaSet": func(c string) client.Object {
			return &appsv1.ReplicaSet{Spec: appsv1.ReplicaSetSpec{Selector: selector, Template: template(c)}}
		},
		"StatefulSet": func(c string) client.Object {
			return &appsv1.StatefulSet{Spec: appsv1.StatefulSetSpec{Selector: selector, Template: template(c)}}
		},
		"DaemonSet": func(c string) client.Object {
			return &appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{Selector: selector, Template: template(c)}}
		},
		"Job": func(c string) client.Object { return &batchv1.Job{Spec: batch(c)} },
		"CronJob": func(c string) client.Object {
			return &batchv1.CronJob{Spec: batchv1.CronJobSpec{Schedule: "@daily", JobTemplate: batchv1.JobTemplateSpec{Spec: batch(c)}}}
		},
		"ReplicationController": func(c string) client.Object {
			t := template(c)
			return &corev1.ReplicationController{Spec: corev1.ReplicationControllerSpec{Selector: selector.MatchLabels, Template: &t}}
		},
		"PodTemplate": func(c string) client.Object { return &corev1.PodTemplate{Template: template(c)} },
	}
	for kind, build := range kinds {
		object := func(ns, class string) client.Object {
			o := build(class)
			o.SetNamespace(ns)
			o.SetGenerateName("t-")
			return o
		}
		w.refused(kind+" by mallory", w.as(mallory).Create(ctx, object(plain, "regulated")), "user mallory may not use trust class regulated")
		w.refused(kind+" by mallory in a namespace with a class", w.as(mallory).Create(ctx, object(classy, "")), "user mallory may not use trust class regulated")
		w.refused(kind+" of another class than its namespace", w.as(alice).Create(ctx, object(classy, "free")), "this template has")
		w.accepted(kind+" without a class by mallory", w.as(mallory).Create(ctx, object(plain, "")))
		o := object(plain, "regulated")
		if err := w.as(alice).Create(ctx, o); err != nil {
			t.Errorf("%s by alice: %v", kind, err)
			continue
		}
		o.SetAnnotations(map[string]string{"x": "y"})
		w.accepted(kind+": annotation by mallory", w.as(mallory).Update(ctx, o))
	}

	d := kinds["Deployment"]("regulated").(*appsv1.Deployment)
	d.Namespace, d.Name = plain, "d"
	w.must(w.as(alice).Create(ctx, d))
	d.Spec.Replicas = new(int32(3))
	w.accepted("replicas by mallory", w.as(mallory).Update(ctx, d))
	d.Spec.Template.Spec.Containers[0].Image = "evil" + digestOf
	w.refused("image by mallory", w.as(mallory).Update(ctx, d), "may not use")
	d = kinds["Deployment"]("").(*appsv1.Deployment)
	d.Namespace, d.Name = plain, "e"
	w.must(w.as(mallory).Create(ctx, d))
	d.Spec.Template.Labels[v1alpha1.ClassLabel] = "regulated"
	w.refused("class given to a template by mallory", w.as(mallory).Update(ctx, d), "may not use")
	w.accepted("a controller of Kubernetes copies the template", w.as(replicas).Create(ctx, pod(plain, nil)))
}

// TestDaemonSets: the template selects the nodes of the class, and no longer those of a class that it left.
func TestDaemonSets(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(nil)
	d := &appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "x"}}}}
	d.Namespace, d.Name = ns, "d"
	d.Spec.Template.Spec = podSpec()
	d.Spec.Template.Labels = map[string]string{"app": "x", v1alpha1.ClassLabel: "regulated"}
	w.must(w.as(alice).Create(ctx, d))
	if got := d.Spec.Template.Spec.NodeSelector; len(got) != 1 || got[ourLabel] != "true" {
		t.Errorf("node selector of the template: %v, want that of regulated", got)
	}
	d.Spec.Template.Labels[v1alpha1.ClassLabel] = "free"
	d.Spec.Template.Spec.NodeSelector["disk"] = "fast"
	w.must(w.as(admin).Update(ctx, d))
	if got := d.Spec.Template.Spec.NodeSelector; len(got) != 2 || got[v1alpha1.ClassNodeLabelPrefix+"free"] != "true" || got["disk"] != "fast" {
		t.Errorf("node selector of the template after the class changed: %v, want that of free and disk=fast", got)
	}

	d.Spec.Template.Labels[v1alpha1.ClassLabel] = "partial"
	d.Spec.Template.Spec.Tolerations = []corev1.Toleration{{Key: "gpu", Operator: exists, Effect: noExecute, TolerationSeconds: new(int64(7))}}
	w.must(w.as(admin).Update(ctx, d))
	const want = ":NoSchedule 4:NoExecute 5:NoExecute 4-5:NoExecute :NoExecute:30"
	got := d.Spec.Template.Spec.Tolerations
	if len(got) != 6 || got[0].Key != "gpu" || *got[0].TolerationSeconds != 7 || got[0].Effect != noExecute || ourTolerations(got) != want {
		t.Errorf("tolerations of the template of a class of some levels: %+v, want gpu's and %s", got, want)
	}
	d.Spec.Template.Labels["x"] = "y"
	w.must(w.as(admin).Update(ctx, d))
	if got := d.Spec.Template.Spec.Tolerations; len(got) != 6 || ourTolerations(got) != want {
		t.Errorf("tolerations after another change: %+v, want the same", got)
	}
	d.Spec.Template.Labels[v1alpha1.ClassLabel] = "free"
	w.must(w.as(admin).Update(ctx, d))
	if got := d.Spec.Template.Spec.Tolerations; len(got) != 1 || got[0].Key != "gpu" {
		t.Errorf("tolerations after the class changed to one of all levels: %+v, want gpu's", got)
	}
	agent := &appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{Selector: d.Spec.Selector}}
	agent.Namespace, agent.Name, agent.Spec.Template.Spec = ns, "agent", podSpec()
	agent.Spec.Template.Labels = map[string]string{"app": "x"}
	agent.Spec.Template.Spec.Tolerations = []corev1.Toleration{{Key: ourTaint, Operator: exists}}
	w.must(w.as(admin).Create(ctx, agent))
	if got := agent.Spec.Template.Spec; len(got.Tolerations) != 1 || got.NodeSelector != nil {
		t.Errorf("template without a class: %+v, want it as it was", got)
	}
}
