package webhook

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/admission"
)

// enforced waits for the condition of a class.
func (w *world) enforced(class string, want metav1.ConditionStatus, reason, words string) {
	w.t.Helper()
	w.eventually("class "+class+" is enforced: "+string(want), func() error {
		tc := &v1alpha1.TrustClass{}
		if err := w.Get(ctx, client.ObjectKey{Name: class}, tc); err != nil {
			return err
		}
		c := meta.FindStatusCondition(tc.Status.Conditions, v1alpha1.ConditionEnforced)
		if c == nil || c.Status != want || c.Reason != reason || !strings.Contains(c.Message, words) || c.ObservedGeneration != tc.Generation {
			return fmt.Errorf("condition %+v", c)
		}
		return nil
	})
}

// broken breaks something, looks whether it is told, and pods refused for it as long as the webhook is asked, and mends it.
func (w *world) broken(what, reason, words string, spoil, mend func()) {
	w.t.Helper()
	spoil()
	for _, class := range []string{"regulated", "open"} {
		w.enforced(class, metav1.ConditionFalse, reason, words)
	}
	if what != "no webhook" {
		w.must(refusedWith(w.Create(ctx, pod("pay", "open")), words))
	}
	mend()
	w.enforced("open", metav1.ConditionTrue, "InPlace", "")
	w.eventually(what+", mended", func() error { return w.Create(ctx, pod("pay", "open")) })
}

// TestTableProblem: a class is enforced only when the table has it, with all of its rules.
func TestTableProblem(t *testing.T) {
	class := &v1alpha1.TrustClass{Spec: v1alpha1.TrustClassSpec{Levels: []int32{1, 2, 3, 4}}}
	class.Name = "c"
	table := func(change func(*v1alpha1.ClassRules)) *v1alpha1.TrustAdmission {
		all := admission.Table([]v1alpha1.TrustClass{*class})
		rules := all.Classes["c"]
		change(&rules)
		all.Classes["c"] = rules
		return all
	}
	for name, tt := range map[string]struct {
		table *v1alpha1.TrustAdmission
		words string
	}{
		"the same":         {table(func(*v1alpha1.ClassRules) {}), ""},
		"no table":         {&v1alpha1.TrustAdmission{}, "does not have the class yet"},
		"another class":    {admission.Table([]v1alpha1.TrustClass{{}}), "does not have the class yet"},
		"longer grace":     {table(func(r *v1alpha1.ClassRules) { r.GraceSeconds++ }), "other rules than the class"},
		"another level":    {table(func(r *v1alpha1.ClassRules) { r.Untrusted = append(r.Untrusted, "4") }), "other rules than the class"},
		"any digest":       {table(func(r *v1alpha1.ClassRules) { r.Digests = v1alpha1.Any }), "other rules than the class"},
		"another registry": {table(func(r *v1alpha1.ClassRules) { r.Registries = []string{"evil/"} }), "other rules than the class"},
	} {
		p := tableProblem(tt.table, class)
		if got := fmt.Sprint(p); (p == nil) != (tt.words == "") || !strings.Contains(got, tt.words) && tt.words != "" {
			t.Errorf("tableProblem, %s: got %s, want %q", name, got, tt.words)
		}
	}
	going := class.DeepCopy()
	going.DeletionTimestamp = new(metav1.Now())
	if tableProblem(table(func(*v1alpha1.ClassRules) {}), going) == nil {
		t.Error("tableProblem of a class that is being deleted: none")
	}
}
