package node

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/board"
	"touchstone.dev/touchstone/internal/cluster/verdict"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// TestNews: what makes a NodeTrust be written again.
func TestNews(t *testing.T) {
	at := func(d time.Duration) *metav1.Time { return &metav1.Time{Time: now.Add(d)} }
	have := func(change func(*v1alpha1.NodeTrustStatus)) *v1alpha1.NodeTrustStatus {
		s := &v1alpha1.NodeTrustStatus{Trusted: true, Result: "old", VerifiedAt: at(-time.Minute), ExpiresAt: at(4 * time.Minute)}
		if change != nil {
			change(s)
		}
		return s
	}
	newer := func(s *v1alpha1.NodeTrustStatus) {
		s.Result, s.VerifiedAt, s.ExpiresAt = "new", at(0), at(5*time.Minute)
	}
	for _, tc := range []struct {
		name       string
		want, have func(*v1alpha1.NodeTrustStatus)
		write      bool
	}{
		{"the same", nil, nil, false},
		{"the same, in parts of a second", func(s *v1alpha1.NodeTrustStatus) { s.ExpiresAt = at(4*time.Minute + time.Millisecond) }, nil, false},
		{"a newer result", newer, nil, false},
		{"a newer result, and half of the old one's life is over", newer, func(s *v1alpha1.NodeTrustStatus) { s.VerifiedAt, s.ExpiresAt = at(-3*time.Minute), at(2*time.Minute) }, true},
		{"a fall", func(s *v1alpha1.NodeTrustStatus) { s.Trusted = false }, nil, true},
		{"a tag", func(s *v1alpha1.NodeTrustStatus) { s.Tags = map[string]string{"country": "de"} }, nil, true},
		{"somebody made the result live for longer", nil, func(s *v1alpha1.NodeTrustStatus) { s.ExpiresAt = at(time.Hour) }, true},
		{"somebody made the result younger", nil, func(s *v1alpha1.NodeTrustStatus) { s.VerifiedAt = at(time.Hour) }, true},
		{"somebody took its times away", nil, func(s *v1alpha1.NodeTrustStatus) { s.VerifiedAt, s.ExpiresAt = nil, nil }, true},
		{"no result", func(s *v1alpha1.NodeTrustStatus) { *s = v1alpha1.NodeTrustStatus{} }, func(s *v1alpha1.NodeTrustStatus) { *s = v1alpha1.NodeTrustStatus{} }, false},
	} {
		if got := news(have(tc.want), have(tc.have), now); got != tc.write {
			t.Errorf("%s: news(): got %v, want %v", tc.name, got, tc.write)
		}
	}
}

// TestConditionOfNodeThatIsGone: a node that goes while it is told of is no failure; everything else is.
func TestConditionOfNodeThatIsGone(t *testing.T) {
	for _, tc := range []struct {
		answer error
		fails  bool
	}{
		{apierrors.NewNotFound(schema.GroupResource{Resource: "nodes"}, "w1"), false},
		{apierrors.NewForbidden(schema.GroupResource{Resource: "nodes"}, "w1", errors.New("no right")), true},
	} {
		r := &Reconciler{Wrote: func(string) {}, Client: interceptor.NewClient(nil, interceptor.Funcs{
			SubResourcePatch: func(context.Context, client.Client, string, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
				return tc.answer
			},
		})}
		f := &facts{node: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "w1"}}, now: now}
		e := &board.Entry{Name: "w1", Verdict: verdict.Verdict{Code: verdict.CodeExpired, Reason: "x"}}
		if err := r.carryCondition(t.Context(), f, e); (err != nil) != tc.fails {
			t.Errorf("carryCondition(), the API server says %v: got %v", tc.answer, err)
		}
	}
}

// TestPriority: falls come before rises, rises before looks, and telling after everything.
func TestPriority(t *testing.T) {
	fallen, lost, trusted := board.Entry{}, board.Entry{Lost: map[string]time.Time{"a": now}}, board.Entry{}
	lost.Verdict.Trusted, trusted.Verdict.Trusted = true, true
	if Priority(&fallen) != Closing || Priority(&lost) != Closing || Priority(&trusted) != Opening {
		t.Errorf("Priority(): got %d for a fallen node, %d for one that lost a class, %d for a trusted one", Priority(&fallen), Priority(&lost), Priority(&trusted))
	}
	const listed = -100 // controller-runtime: handler.LowPriority
	if !(Closing > Leaving && Leaving > Opening && Opening > Looking && Looking > listed && listed > Telling) {
		t.Error("the order of priorities is wrong")
	}
}
