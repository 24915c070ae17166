package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// TrustPolicy is what AIAS appraises nodes by, the same document that `touchstone policy default` prints. Only the one named "default"
// counts; the controller carries it to AIAS. Without it, AIAS has the policy of its file or of its API.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=tp,categories=touchstone
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type TrustPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is a Spec of package policy, unread: its schema in the manifest follows from that type (internal/policy, TestManifest).
	// +kubebuilder:pruning:PreserveUnknownFields
	Spec   runtime.RawExtension `json:"spec,omitempty"`
	Status TrustPolicyStatus    `json:"status,omitempty"`
}

// TrustPolicyStatus says what AIAS made of it.
type TrustPolicyStatus struct {
	// Conditions: Accepted (AIAS appraises by this policy; else its refusal in words).
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Policy names what AIAS appraises by: the SHA-256 of what the policy says.
	// +optional
	Policy string `json:"policy,omitempty"`
}

// TrustPolicyList is a list of TrustPolicy.
//
// +kubebuilder:object:root=true
type TrustPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TrustPolicy `json:"items"`
}
