package v1alpha1

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ImageTrust is what AIAS's newest scans say of an image that pods use whose classes ask for scans. Its name is the image's digest, with '-' for ':'. Only
// the trust-controller writes it, after it has verified what AIAS signed; it goes when no such pod uses the image any more.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=it,categories=touchstone
// +kubebuilder:printcolumn:name="Image",type=string,JSONPath=`.status.image`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Failed",type=string,JSONPath=`.status.failedSummary`
// +kubebuilder:printcolumn:name="Vulnerabilities",type=string,JSONPath=`.status.vulnerabilitySummary`
// +kubebuilder:printcolumn:name="Pods",type=integer,JSONPath=`.status.pods`
// +kubebuilder:printcolumn:name="Scanned",type=date,JSONPath=`.status.scanned`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Accepted")].message`
type ImageTrust struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Status ImageTrustStatus `json:"status,omitempty"`
}

// ImageTrustStatus is what is known of an image. Its zero value is: nothing.
type ImageTrustStatus struct {
	// Image is the image as a pod names it, with its digest; of several names the first.
	// +optional
	Image string `json:"image,omitempty"`
	// Pods is how many pods use it whose classes ask for scans.
	// +optional
	Pods int32 `json:"pods,omitempty"`
	// Scanned is when it was scanned last for what those classes ask for; empty: never.
	// +optional
	Scanned *metav1.Time `json:"scanned,omitempty"`
	// Scans are the newest scans by the profiles that classes ask for.
	// +optional
	// +listType=map
	// +listMapKey=profile
	// +kubebuilder:validation:MaxItems=16
	Scans []ImageScan `json:"scans,omitempty"`
	// FailedSummary is how many rules did not pass in the scan that has most of them, in one line.
	// +optional
	FailedSummary string `json:"failedSummary,omitempty"`
	// Vulnerabilities is what the newest look for known vulnerabilities found; empty: nobody looked.
	// +optional
	Vulnerabilities *ImageVulnerabilities `json:"vulnerabilities,omitempty"`
	// VulnerabilitySummary is the same in one line.
	// +optional
	VulnerabilitySummary string `json:"vulnerabilitySummary,omitempty"`
	// Classes are the TrustClasses that ask for scans, and what they say of the image now.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Classes []ImageClass `json:"classes,omitempty"`
	// Conditions: Accepted (every class whose pods use the image would take it for a new pod; Unknown while AIAS cannot be asked).
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ImageScan is a scan by a profile in short.
type ImageScan struct {
	Profile string      `json:"profile"`
	Scanned metav1.Time `json:"scanned"`
	By      string      `json:"by"`      // who sent it to AIAS
	Content string      `json:"content"` // SHA-256 of the data stream, hexadecimal
	Passed  int32       `json:"passed"`
	// Failed is how many rules did not pass. What could not be decided has not passed.
	// +optional
	Failed FailedRules `json:"failed,omitzero"`
}

// ImageVulnerabilities are known vulnerabilities in short.
type ImageVulnerabilities struct {
	Scanned  metav1.Time `json:"scanned"`
	FeedMade metav1.Time `json:"feedMade"`
	// +optional
	Counts VulnerabilityCounts `json:"counts,omitzero"`
	// Fixable is how many of them a newer version mends.
	// +optional
	Fixable VulnerabilityCounts `json:"fixable,omitzero"`
}

// ImageClass is what a TrustClass says of an image.
type ImageClass struct {
	Name     string `json:"name"`
	Accepted bool   `json:"accepted"`
	// Reason is why it does not take the image.
	// +optional
	Reason string `json:"reason,omitempty"`
	// Waived is how many rules and vulnerabilities it takes by waivers alone.
	// +optional
	Waived int32 `json:"waived,omitempty"`
	// Until is when that ends if nothing else changes: a waiver ends, or the scan gets too old.
	// +optional
	Until *metav1.Time `json:"until,omitempty"`
}

// ImageTrustList is a list of ImageTrust.
//
// +kubebuilder:object:root=true
type ImageTrustList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ImageTrust `json:"items"`
}

// ImageTrustName is the name of the ImageTrust of a digest (sha256:...).
func ImageTrustName(digest string) string { return strings.Replace(digest, ":", "-", 1) }
