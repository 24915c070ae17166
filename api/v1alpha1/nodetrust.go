package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// NodeTrust is what AIAS says of the node with the same name. Only the trust-controller writes it, after it has verified the signed
// Attestation Result itself.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=nt,categories=touchstone
// +kubebuilder:printcolumn:name="Trusted",type=boolean,JSONPath=`.status.trusted`
// +kubebuilder:printcolumn:name="L1",type=string,JSONPath=`.status.levels[?(@.level==1)].status`
// +kubebuilder:printcolumn:name="L2",type=string,JSONPath=`.status.levels[?(@.level==2)].status`
// +kubebuilder:printcolumn:name="L3",type=string,JSONPath=`.status.levels[?(@.level==3)].status`
// +kubebuilder:printcolumn:name="L4",type=string,JSONPath=`.status.levels[?(@.level==4)].status`
// +kubebuilder:printcolumn:name="L5",type=string,JSONPath=`.status.levels[?(@.level==5)].status`
// +kubebuilder:printcolumn:name="Tags",type=string,JSONPath=`.status.tagSummary`
// +kubebuilder:printcolumn:name="Compliance",type=string,priority=1,JSONPath=`.status.compliance.status`
// +kubebuilder:printcolumn:name="Audit",type=string,priority=1,JSONPath=`.status.audit.chain`
// +kubebuilder:printcolumn:name="Detections",type=integer,priority=1,JSONPath=`.status.audit.detections`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.status.verifiedAt`
// +kubebuilder:printcolumn:name="Expires",type=string,JSONPath=`.status.expiresAt`
type NodeTrust struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Status NodeTrustStatus `json:"status,omitempty"`
}

// NodeTrustStatus is the verdict on a node. Its zero value is: not trusted.
type NodeTrustStatus struct {
	// Trusted is whether the node is trusted now: its result is authentic, about this very node, fresh, and says so.
	Trusted bool `json:"trusted"`
	// Reason is one line: why the node is not trusted. Empty when it is.
	// +optional
	Reason string `json:"reason,omitempty"`
	// Levels are the five levels, in order; none before the first result.
	// +optional
	// +listType=map
	// +listMapKey=level
	// +kubebuilder:validation:MaxItems=5
	Levels []LevelStatus `json:"levels,omitempty"`
	// SoftwareTPM is set when the node's TPM is a program, which can be copied.
	// +optional
	SoftwareTPM bool `json:"softwareTPM,omitempty"`
	// Tags are the asset tags that the node's TPM holds and AIAS has proven.
	// +optional
	Tags map[string]string `json:"tags,omitempty"`
	// TagSummary is Tags in one line.
	// +optional
	TagSummary string `json:"tagSummary,omitempty"`
	// Compliance is the newest compliance scan of the node in short; empty when there is none. What it costs is in level 5.
	// +optional
	Compliance *NodeCompliance `json:"compliance,omitempty"`
	// Audit is what the audit events of the node come to; empty when nothing is known of any. What it costs is in level 5.
	// +optional
	Audit *NodeAudit `json:"audit,omitempty"`
	// Classes are the TrustClasses that the node meets now, sorted.
	// +optional
	// +listType=set
	Classes []string `json:"classes,omitempty"`
	// Result is the signed Attestation Result, a JWT.
	// +optional
	Result string `json:"result,omitempty"`
	// VerifiedAt is when AIAS judged the Evidence behind the result.
	// +optional
	VerifiedAt *metav1.Time `json:"verifiedAt,omitempty"`
	// ExpiresAt is when the result ends: from then on the node is not trusted.
	// +optional
	ExpiresAt *metav1.Time `json:"expiresAt,omitempty"`
	// FellAt is when the node last lost trust or a class that it had; empty when it has all of it, or never had any. The breaker counts by it,
	// and the grace of evictions begins with it.
	// +optional
	FellAt *metav1.Time `json:"fellAt,omitempty"`
	// Node is the node object that the result was found to be about.
	// +optional
	Node *NodeBinding `json:"node,omitempty"`
	// Conditions: Trusted, Bound (the result is about this very node object), Held (enforcement is held by the breaker), and
	// class.touchstone.dev/NAME, False since the node lost that class.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// LevelStatus is the verdict of one level.
type LevelStatus struct {
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=5
	Level int32  `json:"level"`
	Name  string `json:"name"`
	// +kubebuilder:validation:Enum=pass;warn;fail;unknown
	Status string `json:"status"`
	// +optional
	Reason string `json:"reason,omitempty"`
}

// NodeCompliance is a compliance scan of a node in short.
type NodeCompliance struct {
	Profile string      `json:"profile"`
	Scanned metav1.Time `json:"scanned"`
	Passed  int32       `json:"passed"`
	// Failed is how many rules did not pass. What could not be decided has not passed.
	// +optional
	Failed FailedRules `json:"failed,omitzero"`
	// Status is the worst that the policy finds in it: pass, warn, fail or unknown.
	// +kubebuilder:validation:Enum=pass;warn;fail;unknown
	Status string `json:"status"`
}

// NodeAudit is the audit of a node in short.
type NodeAudit struct {
	// Chain is the worst that the policy finds in the chain of audit events that the node signed, and in how it audits: pass, warn, fail or unknown.
	// +kubebuilder:validation:Enum=pass;warn;fail;unknown
	Chain string `json:"chain"`
	// Detections is how many detections of misuse count now.
	Detections int32 `json:"detections"`
	// Worst is the worst severity among them: critical, high, medium, low or informational.
	// +optional
	Worst string `json:"worst,omitempty"`
}

// NodeBinding names a node object and the TPM behind it. A node that is deleted and made again has another UID, and is untrusted until its
// next result.
type NodeBinding struct {
	UID types.UID `json:"uid"`
	// SystemUUID is the node's status.nodeInfo.systemUUID, lower case.
	// +optional
	SystemUUID string `json:"systemUUID,omitempty"`
	// BootID is the node's status.nodeInfo.bootID when the result was accepted: another one means that the node has rebooted since.
	// +optional
	BootID string `json:"bootID,omitempty"`
	// AKName is the TPM Name of the attestation key, hexadecimal.
	AKName string `json:"akName"`
}

// NodeTrustList is a list of NodeTrust.
//
// +kubebuilder:object:root=true
type NodeTrustList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []NodeTrust `json:"items"`
}

// Condition types of NodeTrust.
const (
	ConditionTrusted = "Trusted"
	ConditionBound   = "Bound"
	ConditionHeld    = "Held"
	// ClassConditionPrefix and the name of a TrustClass are False on a node that met the class once and does not any more, since then.
	ClassConditionPrefix = "class.touchstone.dev/"
)
