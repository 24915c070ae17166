package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// TrustEnforcement says how verdicts are enforced in the cluster, and whether the breaker holds. Only the one named "cluster" counts; without it
// the defaults hold.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=te,categories=touchstone
// +kubebuilder:validation:XValidation:rule="self.metadata.name == 'cluster'",message="only the TrustEnforcement named cluster counts"
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="Held-Nodes",type=integer,JSONPath=`.status.heldNodes`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.message`
type TrustEnforcement struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +kubebuilder:default={}
	Spec   TrustEnforcementSpec   `json:"spec"`
	Status TrustEnforcementStatus `json:"status,omitempty"`
}

// TrustEnforcementSpec are the settings.
type TrustEnforcementSpec struct {
	// OtherPods says what happens to pods without a class on a node that falls: Evict (the taint has effect NoExecute), or Stay.
	// +kubebuilder:default=Evict
	// +kubebuilder:validation:Enum=Evict;Stay
	OtherPods string `json:"otherPods,omitempty"`
	// +kubebuilder:default={}
	Breaker Breaker `json:"breaker,omitempty"`
	// Confirm is the status.holdID of a hold that a person has looked at: what was held is carried out.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Confirm string `json:"confirm,omitempty"`
}

// Breaker bounds what falls at once. While it holds, the nodes that fell lose their labels and take no new pods, but nothing that runs is removed.
type Breaker struct {
	// MaxShare is the share of the nodes, in per cent, that may fall within Window.
	// +kubebuilder:default=30
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	MaxShare int32 `json:"maxShare,omitempty"`
	// MinNodes is how many nodes may always fall, however small the cluster is.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	MinNodes int32 `json:"minNodes,omitempty"`
	// Window is the time that counts as "at once".
	// +kubebuilder:default="1m"
	Window *metav1.Duration `json:"window,omitempty"`
}

// States of enforcement.
const (
	StateEnforcing = "Enforcing"
	StateHeld      = "Held"
)

// TrustEnforcementStatus is the state of the breaker.
type TrustEnforcementStatus struct {
	// +optional
	// +kubebuilder:validation:Enum=Enforcing;Held
	State string `json:"state,omitempty"`
	// HoldID names the present hold; spec.confirm repeats it to end the hold.
	// +optional
	HoldID string `json:"holdID,omitempty"`
	// HeldNodes is how many nodes have fallen without consequences for what runs there.
	// +optional
	HeldNodes int32 `json:"heldNodes,omitempty"`
	// +optional
	Message string `json:"message,omitempty"`
	// +optional
	Since *metav1.Time `json:"since,omitempty"`
}

// TrustEnforcementList is a list of TrustEnforcement.
//
// +kubebuilder:object:root=true
type TrustEnforcementList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TrustEnforcement `json:"items"`
}
