package admission

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"touchstone.dev/touchstone/api/v1alpha1"
)

// workloadControllers are the service accounts in kube-system that make pods, or objects with templates of pods, from templates. Whoever wrote
// the template was asked; so they may use every class.
var workloadControllers = []string{
	"cronjob-controller", "daemon-set-controller", "deployment-controller", "job-controller",
	"replicaset-controller", "replication-controller", "statefulset-controller",
}

// workloadRole lets the controllers of Kubernetes make pods of every class.
func workloadRole() (*rbacv1.ClusterRole, *rbacv1.ClusterRoleBinding) {
	meta := metav1.ObjectMeta{
		Name:   "touchstone-workload-controllers",
		Labels: map[string]string{"app.kubernetes.io/name": "touchstone", "app.kubernetes.io/component": "admission"},
	}
	role := &rbacv1.ClusterRole{
		TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "ClusterRole"},
		ObjectMeta: meta,
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"trustclasses"}, Verbs: []string{v1alpha1.UseVerb}}},
	}
	binding := &rbacv1.ClusterRoleBinding{
		TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "ClusterRoleBinding"},
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		// A controller-manager without --use-service-account-credentials acts as one user.
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "system:kube-controller-manager"}},
	}
	for _, name := range workloadControllers {
		binding.Subjects = append(binding.Subjects, rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: "kube-system", Name: name})
	}
	return role, binding
}
