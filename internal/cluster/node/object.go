package node

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/cluster/board"
	"touchstone.dev/touchstone/internal/cluster/class"
	"touchstone.dev/touchstone/internal/cluster/isecl"
)

// taint is one taint of ours. Key and effect tell it from others'.
type taint struct {
	key, value string
	effect     corev1.TaintEffect
}

// wish is what the controller wants of a node object.
type wish struct {
	labels   map[string]string // all that may be there under our prefixes
	set      []taint           // to be there, with this value
	unset    []taint           // not to be there; what is in no list stays as it is
	valued   []taint           // to have this value, if it is there
	prefixes []string          // of labels that are ours
	notes    map[string]string // annotations; an empty value removes
}

// wanted is what a node's entry asks of its object.
func wanted(e *board.Entry, held, stay bool) *wish {
	w := &wish{labels: map[string]string{v1alpha1.TrustedLabel: strconv.FormatBool(e.Verdict.Trusted)}, prefixes: []string{v1alpha1.NodeLabelPrefix}}
	for l := int32(1); l <= 5; l++ {
		status := e.Class.Levels[l]
		if status == "" {
			status = string(appraisal.Unknown)
		}
		w.labels[v1alpha1.LevelLabelPrefix+strconv.Itoa(int(l))] = status
	}
	for _, name := range e.Classes {
		w.labels[v1alpha1.ClassNodeLabelPrefix+name] = "true"
	}
	for name, value := range e.Class.Tags {
		w.labels[v1alpha1.TagLabelPrefix+name] = value
	}
	w.taint(v1alpha1.UntrustedTaint, "", class.TaintValue(e.Class), e, held, stay)
	return w
}

// taint wants the taint of a key: NoSchedule while the node is not trusted, NoExecute once it has fallen. A node that never had trust keeps the
// NoExecute that it was made with: nothing that matters can run there, and a cluster that is just getting to know Touchstone goes on working.
func (w *wish) taint(key, scheduleValue, executeValue string, e *board.Entry, held, stay bool) {
	schedule, execute := taint{key, scheduleValue, corev1.TaintEffectNoSchedule}, taint{key, executeValue, corev1.TaintEffectNoExecute}
	if e.Verdict.Trusted {
		w.unset = append(w.unset, schedule, execute)
		return
	}
	w.set = append(w.set, schedule)
	switch {
	case held || stay:
		w.unset = append(w.unset, execute)
	case !e.FellAt.IsZero():
		w.set = append(w.set, execute)
	default:
		w.valued = append(w.valued, execute)
	}
}

// withhold takes out what would add NoExecute to a node, and says whether there was something.
func (w *wish) withhold(n *corev1.Node) bool {
	before := len(w.set)
	w.set = slices.DeleteFunc(w.set, func(t taint) bool {
		return t.effect == corev1.TaintEffectNoExecute && !slices.ContainsFunc(n.Spec.Taints, func(have corev1.Taint) bool { return have.Key == t.key && have.Effect == t.effect })
	})
	return len(w.set) < before
}

// patch is the merge patch that gives a node what is wanted, or nil when it has it. Taints are one list that is replaced as a whole (its list type
// is atomic): the patch holds others' in their order, and the resource version, so that the API server refuses it if anyone was faster.
func (w *wish) patch(n *corev1.Node, now time.Time) []byte {
	metadata, spec := map[string]any{}, map[string]any{}
	if labels := w.labelsOf(n); len(labels) > 0 {
		metadata["labels"] = labels
	}
	notes := map[string]any{}
	for k, v := range w.notes {
		if have, ok := n.Annotations[k]; v == "" && ok {
			notes[k] = nil
		} else if v != "" && have != v {
			notes[k] = v
		}
	}
	if len(notes) > 0 {
		metadata["annotations"] = notes
	}
	if taints, changed := w.taintsOf(n, now); changed {
		spec["taints"] = taints
	}
	if len(metadata) == 0 && len(spec) == 0 {
		return nil
	}
	metadata["resourceVersion"] = n.ResourceVersion
	metadata["uid"] = n.UID // never another object of the name
	b, err := json.Marshal(map[string]any{"metadata": metadata, "spec": spec})
	if err != nil {
		panic(fmt.Sprintf("node: a patch of texts always marshals: %v", err))
	}
	return b
}

func (w *wish) labelsOf(n *corev1.Node) map[string]any {
	diff := map[string]any{}
	for k := range n.Labels {
		if _, keep := w.labels[k]; !keep && slices.ContainsFunc(w.prefixes, func(p string) bool { return strings.HasPrefix(k, p) }) {
			diff[k] = nil
		}
	}
	for k, v := range w.labels {
		if have, ok := n.Labels[k]; !ok || have != v {
			diff[k] = v
		}
	}
	return diff
}

func (w *wish) taintsOf(n *corev1.Node, now time.Time) ([]corev1.Taint, bool) {
	taints, changed := []corev1.Taint{}, false
	is := func(t corev1.Taint) func(taint) bool {
		return func(w taint) bool { return w.key == t.Key && w.effect == t.Effect }
	}
	for _, t := range n.Spec.Taints {
		if slices.ContainsFunc(w.unset, func(w taint) bool { return is(t)(w) && (t.Key == v1alpha1.UntrustedTaint || t.Value == w.value) }) { // the key "untrusted" may be anybody's
			changed = true
			continue
		}
		for _, ours := range slices.Concat(w.set, w.valued) {
			if is(t)(ours) && t.Value != ours.value {
				t.Value, changed = ours.value, true
				if t.Effect == corev1.TaintEffectNoExecute {
					t.TimeAdded = &metav1.Time{Time: now} // for who tolerates the new one for a while, it begins now
				}
			}
		}
		taints = append(taints, t)
	}
	for _, t := range w.set {
		if slices.ContainsFunc(n.Spec.Taints, func(have corev1.Taint) bool { return is(have)(t) }) {
			continue
		}
		added := corev1.Taint{Key: t.key, Value: t.value, Effect: t.effect}
		if t.effect == corev1.TaintEffectNoExecute {
			added.TimeAdded = &metav1.Time{Time: now}
		}
		taints, changed = append(taints, added), true
	}
	return taints, changed
}

// conditionPatch is the strategic merge patch of the node's status that sets our condition, or nil when it is set.
func conditionPatch(n *corev1.Node, e *board.Entry, now time.Time) []byte {
	want := corev1.NodeCondition{Type: v1alpha1.TrustedCondition, Status: corev1.ConditionFalse, Reason: e.Verdict.Code, Message: e.Verdict.Reason,
		LastHeartbeatTime: metav1.NewTime(now), LastTransitionTime: metav1.NewTime(now)}
	if e.Verdict.Trusted {
		want.Status, want.Message = corev1.ConditionTrue, "AIAS trusts the node"
	}
	for _, c := range n.Status.Conditions {
		if c.Type != v1alpha1.TrustedCondition {
			continue
		}
		if c.Status == want.Status && c.Reason == want.Reason && c.Message == want.Message {
			return nil
		}
		if c.Status == want.Status {
			want.LastTransitionTime = c.LastTransitionTime
		}
	}
	b, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": n.UID}, "status": map[string]any{"conditions": []corev1.NodeCondition{want}}})
	if err != nil {
		panic(fmt.Sprintf("node: a condition always marshals: %v", err))
	}
	return b
}

// Strip leaves of a node object what the controller reads; it is the transform of the cache.
func Strip(o any) (any, error) {
	n, ok := o.(*corev1.Node)
	if !ok {
		return o, nil
	}
	labels := maps.Clone(n.Labels)
	maps.DeleteFunc(labels, func(k, _ string) bool { return !strings.HasPrefix(k, v1alpha1.NodeLabelPrefix) && !isecl.Ours(k) })
	notes := maps.Clone(n.Annotations)
	maps.DeleteFunc(notes, func(k, _ string) bool { return !isecl.Ours(k) })
	s := &corev1.Node{TypeMeta: n.TypeMeta, ObjectMeta: metav1.ObjectMeta{
		Name: n.Name, UID: n.UID, ResourceVersion: n.ResourceVersion, CreationTimestamp: n.CreationTimestamp, DeletionTimestamp: n.DeletionTimestamp,
		Labels: labels, Annotations: notes,
	}}
	s.Spec.Taints = n.Spec.Taints
	s.Status.NodeInfo.SystemUUID, s.Status.NodeInfo.BootID = n.Status.NodeInfo.SystemUUID, n.Status.NodeInfo.BootID
	for _, c := range n.Status.Conditions {
		if c.Type == v1alpha1.TrustedCondition {
			s.Status.Conditions = []corev1.NodeCondition{c}
		}
	}
	return s, nil
}
