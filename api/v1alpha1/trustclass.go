package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// TrustClass is what a workload demands of the node it runs on, and of itself, as a StorageClass is for volumes. A pod names its class by
// the label touchstone.dev/trust-class, or its namespace has the label and all of its pods the class. Who may use a class is
// said by the RBAC verb "use" on it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=tc,categories=touchstone
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="the name becomes part of a node label: at most 40 lower case letters, digits and '-'"
// +kubebuilder:printcolumn:name="Levels",type=string,JSONPath=`.spec.levels`
// +kubebuilder:printcolumn:name="Max-Age",type=string,JSONPath=`.spec.maxResultAge`
// +kubebuilder:printcolumn:name="Isolation",type=string,JSONPath=`.spec.network.isolation`
// +kubebuilder:printcolumn:name="Pod-Security",type=string,JSONPath=`.spec.podSecurity`
// +kubebuilder:printcolumn:name="Grace",type=string,JSONPath=`.spec.eviction.grace`
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.nodes`
// +kubebuilder:printcolumn:name="Enforced",type=string,JSONPath=`.status.conditions[?(@.type=="Enforced")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type TrustClass struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +kubebuilder:default={}
	Spec   TrustClassSpec   `json:"spec"`
	Status TrustClassStatus `json:"status,omitempty"`
}

// TrustClassSpec is what the class demands. What is left out is the strict choice.
type TrustClassSpec struct {
	// Levels that must hold (pass or warn) on the node. Leaving one out means that the class does not care about it: a node that
	// is not trusted as a whole may then still meet the class, and its pods run and are scheduled there.
	// +kubebuilder:default={1,2,3,4,5}
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=5
	// +kubebuilder:validation:items:Minimum=1
	// +kubebuilder:validation:items:Maximum=5
	// +listType=set
	Levels []int32 `json:"levels,omitempty"`
	// Warnings says whether a level with warnings holds.
	// +kubebuilder:default=Allow
	// +kubebuilder:validation:Enum=Allow;Deny
	Warnings string `json:"warnings,omitempty"`
	// SoftwareTPM says whether a node may have a TPM that is a program.
	// +kubebuilder:default=Deny
	// +kubebuilder:validation:Enum=Allow;Deny
	SoftwareTPM string `json:"softwareTPM,omitempty"`
	// MaxResultAge is how old the result may be, if that is sooner than its expiry.
	// +optional
	MaxResultAge *metav1.Duration `json:"maxResultAge,omitempty"`
	// Tags are asset tags that the node must have, each with one of the values.
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	Tags map[string]TagValues `json:"tags,omitempty"`
	// +kubebuilder:default={}
	Network NetworkRequirement `json:"network,omitempty"`
	// PodSecurity is the least Pod Security level that the pod's namespace must enforce.
	// +kubebuilder:default=restricted
	// +kubebuilder:validation:Enum=privileged;baseline;restricted
	PodSecurity string `json:"podSecurity,omitempty"`
	// +kubebuilder:default={}
	Images ImageRequirement `json:"images,omitempty"`
	// EphemeralContainers says whether containers may be added to a running pod.
	// +kubebuilder:default=Deny
	// +kubebuilder:validation:Enum=Allow;Deny
	EphemeralContainers string `json:"ephemeralContainers,omitempty"`
	// +kubebuilder:default={}
	Eviction Eviction `json:"eviction,omitempty"`
}

// TagValues are values of which a tag must have one.
//
// +kubebuilder:validation:MinItems=1
// +kubebuilder:validation:MaxItems=32
// +kubebuilder:validation:items:MaxLength=63
type TagValues []string

// NetworkRequirement is what must isolate the pod.
type NetworkRequirement struct {
	// Isolation Required: NetworkPolicies must select the pod for ingress and egress, when it is made and as long as it runs. `touchstone netpol` prints
	// one.
	// +kubebuilder:default=Required
	// +kubebuilder:validation:Enum=Required;None
	Isolation string `json:"isolation,omitempty"`
	// OnLoss says what happens to a running pod that is isolated no longer: Evict it, within the class's grace, or Report it only.
	// +kubebuilder:default=Evict
	// +kubebuilder:validation:Enum=Evict;Report
	OnLoss string `json:"onLoss,omitempty"`
}

// ImageRequirement is what the images of all containers of the pod must show.
type ImageRequirement struct {
	// Digests Required: each image is named by its digest.
	// +kubebuilder:default=Required
	// +kubebuilder:validation:Enum=Required;Any
	Digests string `json:"digests,omitempty"`
	// Registries are prefixes of which each image name must have one ("registry.example/team/"). None means any.
	// +optional
	// +kubebuilder:validation:MaxItems=32
	Registries []string `json:"registries,omitempty"`
	// SignedBy are public keys (PEM) of which one must have signed each image, in cosign's format. None means no signature is needed.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	SignedBy []string `json:"signedBy,omitempty"`
	// Encryption Required: every layer of each image is encrypted.
	// +kubebuilder:default=Any
	// +kubebuilder:validation:Enum=Required;Any
	Encryption string `json:"encryption,omitempty"`
	// Compliance is what the newest scan of each image must show. None means that no scan is needed.
	// +optional
	Compliance *ComplianceRequirement `json:"compliance,omitempty"`
}

// Eviction says how pods of the class leave a node that does not meet the class any more.
type Eviction struct {
	// Grace is how long evictions respect PodDisruptionBudgets; after it pods are deleted.
	// +kubebuilder:default="30s"
	Grace *metav1.Duration `json:"grace,omitempty"`
	// OnFall Evict removes running pods, Stay only keeps new ones away (as long as the taint does not remove them).
	// +kubebuilder:default=Evict
	// +kubebuilder:validation:Enum=Evict;Stay
	OnFall string `json:"onFall,omitempty"`
}

// TrustClassStatus counts.
type TrustClassStatus struct {
	// Nodes is how many nodes meet the class now.
	// +optional
	Nodes int32 `json:"nodes,omitempty"`
	// Conditions: Enforced (what enforces the class in the API server is in place, and as this version of Touchstone makes it), Isolated (no running pod of the class lacks isolation).
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// TrustClassList is a list of TrustClass.
//
// +kubebuilder:object:root=true
type TrustClassList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TrustClass `json:"items"`
}

// Condition types of TrustClass.
const (
	ConditionEnforced = "Enforced"
	ConditionIsolated = "Isolated"
)

// Words of the fields above.
const (
	Allow    = "Allow"
	Deny     = "Deny"
	Required = "Required"
	None     = "None"
	Any      = "Any"
	Evict    = "Evict"
	Stay     = "Stay"
	Report   = "Report"
)
