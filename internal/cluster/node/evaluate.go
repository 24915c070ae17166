package node

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/cluster/board"
	"touchstone.dev/touchstone/internal/cluster/class"
	"touchstone.dev/touchstone/internal/cluster/verdict"
)

// facts are what one evaluation reads.
type facts struct {
	node    *corev1.Node
	trust   *v1alpha1.NodeTrust   // nil when there is none
	gone    *v1alpha1.NodeBinding // of an earlier node object of this name
	said    verdict.Said
	classes []v1alpha1.TrustClass
	now     time.Time
	allow   bool // AllowMissingUUID
}

// evaluate makes a node's entry from the one before; old is nil for a node that is new to the board.
func evaluate(f *facts, old *board.Entry) board.Entry {
	if old == nil || old.UID != f.node.UID {
		old = remembered(f)
	}
	e := board.Entry{Name: f.node.Name, UID: f.node.UID, FellAt: old.FellAt, Since: old.Since, Lost: map[string]time.Time{}}
	e.Verdict = verdict.Judge(verdict.Input{
		Node: verdict.Node{
			Name: f.node.Name, UID: f.node.UID, Created: f.node.CreationTimestamp.Time,
			SystemUUID: f.node.Status.NodeInfo.SystemUUID, BootID: f.node.Status.NodeInfo.BootID,
		},
		Said: f.said, Bound: f.bound(), Now: f.now, AllowMissingUUID: f.allow,
	})
	e.Class = classNode(&e.Verdict)
	now := f.now.Truncate(time.Second) // as times are kept in objects
	switch was := old.Verdict.Trusted; {
	case was && !e.Verdict.Trusted:
		e.FellAt, e.Since = now, now
	case !was && e.Verdict.Trusted || e.Since.IsZero():
		e.Since = now
	}
	meet(&e, f, old, now)
	if e.Verdict.Trusted && len(e.Lost) == 0 {
		e.FellAt = time.Time{}
	}
	return e
}

// meet finds the classes that the node meets, and those that it has lost.
func meet(e *board.Entry, f *facts, old *board.Entry, now time.Time) {
	if e.Verdict.Valid {
		e.Until = e.Verdict.Result.Expires
	}
	for i := range f.classes {
		name := f.classes[i].Name
		answer := class.Meets(&f.classes[i].Spec, e.Class, f.now)
		lost, wasLost := old.Lost[name]
		switch {
		case answer.Meets:
			e.Classes = append(e.Classes, name)
			if answer.Until.Before(e.Until) {
				e.Until = answer.Until
			}
		case slices.Contains(old.Classes, name):
			e.Lost[name], e.FellAt = now, now
		case wasLost:
			e.Lost[name] = lost
		}
	}
	slices.Sort(e.Classes)
}

// bound is what the node object is bound to: what its NodeTrust remembers, else what an earlier object of this name had.
func (f *facts) bound() *v1alpha1.NodeBinding {
	if f.trust != nil && f.trust.Status.Node != nil {
		return f.trust.Status.Node
	}
	if f.gone != nil && f.gone.UID != f.node.UID {
		return f.gone
	}
	return nil
}

// remembered is the entry that the node had when its NodeTrust was written: nothing when that is about another node object.
func remembered(f *facts) *board.Entry {
	e := &board.Entry{}
	if !owned(f.trust, f.node.UID) {
		return e
	}
	s := &f.trust.Status
	e.Verdict.Trusted, e.Classes, e.Lost = s.Trusted, s.Classes, map[string]time.Time{}
	if s.FellAt != nil {
		e.FellAt = s.FellAt.Time
	}
	for _, c := range s.Conditions {
		if c.Type == v1alpha1.ConditionTrusted {
			e.Since = c.LastTransitionTime.Time
		}
		if name, ok := strings.CutPrefix(c.Type, v1alpha1.ClassConditionPrefix); ok {
			e.Lost[name] = c.LastTransitionTime.Time
		}
	}
	return e
}

// owned says whether a NodeTrust was made for the node object with this UID.
func owned(nt *v1alpha1.NodeTrust, uid types.UID) bool {
	return nt != nil && slices.ContainsFunc(nt.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == uid })
}

// classNode is what classes are held against.
func classNode(v *verdict.Verdict) class.Node {
	n := class.Node{Valid: v.Valid, Why: v.Reason}
	if !v.Valid {
		return n
	}
	r := v.Result
	n.SoftwareTPM, n.Issued, n.Expires = r.SoftwareTPM, r.Issued, r.Expires
	n.Levels, n.Reasons, n.Tags = map[int32]string{}, map[int32]string{}, map[string]string{}
	for _, l := range r.Levels {
		if slices.Contains(statuses, l.Status) {
			n.Levels[int32(l.Level)], n.Reasons[int32(l.Level)] = string(l.Status), bounded(l.Reason)
		}
	}
	// What is no label would make the API server refuse the patch that taints the node.
	for k, val := range r.Tags {
		if len(validation.IsQualifiedName(v1alpha1.TagLabelPrefix+k)) == 0 && val != "" && len(validation.IsValidLabelValue(val)) == 0 {
			n.Tags[k] = val
		}
	}
	return n
}

var statuses = []appraisal.Status{appraisal.Pass, appraisal.Warn, appraisal.Unknown, appraisal.Fail}

// bounded keeps reasons short where they are kept.
func bounded(s string) string {
	if len(s) > maxReason {
		s = s[:maxReason] + "..."
	}
	return strings.ToValidUTF8(s, "")
}

const maxReason = 512

// timeOf is a time of an object; nil for none.
func timeOf(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	m := metav1.NewTime(t)
	return &m
}
