package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// TrustAdmission is what the admission policies in the API server know of the TrustClasses: one table, their parameter. A class that is not in
// the table does not exist for them, so that no pod can use a class before its rules are known. Only the trust-controller writes it, and only
// the one named "cluster" counts.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=ta,categories=touchstone
// +kubebuilder:validation:XValidation:rule="self.metadata.name == 'cluster'",message="only the TrustAdmission named cluster counts"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type TrustAdmission struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Classes are the rules of each TrustClass by its name.
	// +optional
	Classes map[string]ClassRules `json:"classes,omitempty"`
}

// ClassRules is what a pod of a class must show by itself, as far as expressions in the API server can see it. Nothing is left to defaults.
type ClassRules struct {
	// PodSecurity is the least Pod Security level that the namespace must enforce.
	// +kubebuilder:validation:Enum=privileged;baseline;restricted
	PodSecurity string `json:"podSecurity"`
	// +kubebuilder:validation:Enum=Required;Any
	Digests string `json:"digests"`
	// Registries are prefixes of which each image name must have one. None means any.
	// +optional
	Registries []string `json:"registries,omitempty"`
	// PullPolicy Always: the right to each image is asked of its registry whenever a container starts. Encrypted images lie in plain on the nodes that opened
	// them.
	// +kubebuilder:validation:Enum=Always;Any
	PullPolicy string `json:"pullPolicy"`
	// +kubebuilder:validation:Enum=Allow;Deny
	EphemeralContainers string `json:"ephemeralContainers"`
	// GraceSeconds is how long a pod of the class tolerates the taint of an untrusted node.
	// +kubebuilder:validation:Minimum=0
	GraceSeconds int64 `json:"graceSeconds"`
	// Untrusted are the values of the taint with which an untrusted node may still meet the class: all sets of levels that the class leaves out. None
	// when it asks for all five.
	// +optional
	// +kubebuilder:validation:MaxItems=15
	Untrusted []string `json:"untrusted,omitempty"`
}

// TrustAdmissionList is a list of TrustAdmission.
//
// +kubebuilder:object:root=true
type TrustAdmissionList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TrustAdmission `json:"items"`
}

// AdmissionName is the name of the only TrustAdmission that counts.
const AdmissionName = "cluster"
