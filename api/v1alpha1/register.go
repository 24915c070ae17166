package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of these types.
var GroupVersion = schema.GroupVersion{Group: "touchstone.dev", Version: "v1alpha1"}

// AddToScheme adds these types to a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&NodeTrust{}, &NodeTrustList{},
		&ImageTrust{}, &ImageTrustList{},
		&TrustClass{}, &TrustClassList{},
		&AssetTag{}, &AssetTagList{},
		&TrustEnforcement{}, &TrustEnforcementList{},
		&TrustPolicy{}, &TrustPolicyList{},
		&TrustAdmission{}, &TrustAdmissionList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
