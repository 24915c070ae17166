package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// AssetTag is what an administrator says of nodes: where they stand, whose they are. The controller carries it to AIAS, which signs it for each
// node's own TPM; the node shows it as a tag only after its TPM has certified that it holds it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=at,categories=touchstone
// +kubebuilder:printcolumn:name="Nodes",type=string,JSONPath=`.spec.nodes`
// +kubebuilder:printcolumn:name="Tags",type=string,JSONPath=`.spec.tags`
// +kubebuilder:printcolumn:name="Proven",type=string,JSONPath=`.status.conditions[?(@.type=="Proven")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type AssetTag struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   AssetTagSpec   `json:"spec"`
	Status AssetTagStatus `json:"status,omitempty"`
}

// AssetTagSpec names nodes and their tags.
type AssetTagSpec struct {
	// Nodes that have the tags.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=5000
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=set
	Nodes []string `json:"nodes"`
	// Tags by name. Names and values become part of node labels.
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, size(k) <= 40 && k.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'))",message="names: at most 40 lower case letters, digits and '-'"
	// +kubebuilder:validation:XValidation:rule="self.all(k, size(self[k]) <= 63 && self[k].matches('^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$'))",message="values: as those of labels, at most 63 letters, digits, '-', '_' and '.'"
	Tags map[string]TagValue `json:"tags"`
}

// TagValue is the value of a tag.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=63
type TagValue string

// AssetTagStatus says how far it came.
type AssetTagStatus struct {
	// Conditions: Accepted (AIAS has issued the tags), Proven (every node has proven them).
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Nodes are those for which AIAS has been given the tags: those that must be cleared when they leave the spec.
	// +optional
	// +listType=set
	Nodes []string `json:"nodes,omitempty"`
}

// TagFinalizer keeps an AssetTag until AIAS has cleared its tags.
const TagFinalizer = "touchstone.dev/asset-tag"

// AssetTagList is a list of AssetTag.
//
// +kubebuilder:object:root=true
type AssetTagList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AssetTag `json:"items"`
}

// Condition types of AssetTag.
const (
	ConditionAccepted = "Accepted"
	ConditionProven   = "Proven"
)
