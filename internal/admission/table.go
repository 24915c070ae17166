package admission

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/class"
)

const defaultGrace = 30 * time.Second

// Table is the parameter of the policies: the rules of all classes. A class that is being deleted is not in it. What a class leaves out is the strict choice.
func Table(classes []v1alpha1.TrustClass) *v1alpha1.TrustAdmission {
	t := &v1alpha1.TrustAdmission{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "TrustAdmission"},
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.AdmissionName},
		Classes:    map[string]v1alpha1.ClassRules{},
	}
	for i := range classes {
		if c := &classes[i]; c.DeletionTimestamp.IsZero() {
			t.Classes[c.Name] = Rules(&c.Spec)
		}
	}
	return t
}

// Rules are what the policies check of one class.
func Rules(c *v1alpha1.TrustClassSpec) v1alpha1.ClassRules {
	grace := defaultGrace
	if c.Eviction.Grace != nil {
		grace = max(0, c.Eviction.Grace.Duration)
	}
	return v1alpha1.ClassRules{
		PodSecurity:         one(c.PodSecurity, "restricted", "privileged", "baseline"),
		Digests:             one(c.Images.Digests, v1alpha1.Required, v1alpha1.Any),
		Registries:          c.Images.Registries,
		PullPolicy:          pullPolicy(&c.Images),
		EphemeralContainers: one(c.EphemeralContainers, v1alpha1.Deny, v1alpha1.Allow),
		GraceSeconds:        int64(grace / time.Second),
		Untrusted:           class.Untrusted(c),
	}
}

// pullPolicy is Always where images must be encrypted: decrypted once, they are started from the node's store by whoever names them.
func pullPolicy(r *v1alpha1.ImageRequirement) string {
	if r.Encryption == v1alpha1.Required {
		return string(corev1.PullAlways)
	}
	return v1alpha1.Any
}

// one returns word when it is one of the others, else the strict one.
func one(word, strict string, others ...string) string {
	for _, o := range others {
		if word == o {
			return word
		}
	}
	return strict
}
