package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ComplianceRequirement is what the newest scan of each image must show, by the rules that a worker's own scan is judged by
// (TrustPolicy, runtime.compliance). What is left out is the strict choice.
//
// +kubebuilder:validation:XValidation:rule="duration(self.maxAge) > duration('0s')",message="maxAge: want a time that is more than nothing, such as 168h"
// +kubebuilder:validation:XValidation:rule="has(self.profile) || has(self.vulnerabilities)",message="profile, vulnerabilities or both must say what images are scanned for"
// +kubebuilder:validation:XValidation:rule="has(self.profile) || !(has(self.content) || has(self.tailorings) || has(self.required) || has(self.maxFailed) || has(self.minScore))",message="content, tailorings, required, maxFailed and minScore are about a scan by a profile: name one"
type ComplianceRequirement struct {
	// Profile is the id of the XCCDF profile by which each image must have been scanned. Without one only vulnerabilities count.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Profile string `json:"profile,omitempty"`
	// MaxAge is how old the newest scan may be.
	MaxAge metav1.Duration `json:"maxAge"`
	// Content are the SHA-256 of SCAP data streams that count, hexadecimal, or "baseline": that which comes with this version. None means any.
	// +optional
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:Pattern=`^([0-9a-f]{64}|baseline)$`
	Content []string `json:"content,omitempty"`
	// Tailorings are the SHA-256 of tailorings that may have been used, hexadecimal. None means that none may.
	// +optional
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:Pattern=`^[0-9a-f]{64}$`
	Tailorings []string `json:"tailorings,omitempty"`
	// Required are ids of rules that must pass, whatever maxFailed says. One that was not judged has not passed.
	// +optional
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=512
	Required []string `json:"required,omitempty"`
	// MaxFailed is how many rules of a severity may fail. None of a severity that it does not name.
	// +optional
	MaxFailed *FailedRules `json:"maxFailed,omitempty"`
	// Undecided says what rules are that were not decided (error, unknown, notchecked): Fail, or Ignore.
	// +kubebuilder:default=Fail
	// +kubebuilder:validation:Enum=Fail;Ignore
	Undecided string `json:"undecided,omitempty"`
	// MinScore is the least score, in per cent. It hides more than it shows: prefer maxFailed.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	MinScore int32 `json:"minScore,omitempty"`
	// Vulnerabilities says which known vulnerabilities there may be; images must then have been held against a feed. Without it none may be there that a
	// scan names, and none need have been looked for.
	// +optional
	Vulnerabilities *VulnerabilityRequirement `json:"vulnerabilities,omitempty"`
	// Waivers let single rules fail, or single vulnerabilities be there, for a time.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	Waivers []ImageWaiver `json:"waivers,omitempty"`
}

// FailedRules is a number of rules for each severity; -1 is any number. A rule that does not say how severe it is counts as medium.
type FailedRules struct {
	// +optional
	// +kubebuilder:validation:Minimum=-1
	High int32 `json:"high,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=-1
	Medium int32 `json:"medium,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=-1
	Low int32 `json:"low,omitempty"`
}

// VulnerabilityRequirement says which known vulnerabilities an image may have.
//
// +kubebuilder:validation:XValidation:rule="!has(self.maxFeedAge) || duration(self.maxFeedAge) > duration('0s')",message="maxFeedAge: want a time that is more than nothing, such as 168h"
type VulnerabilityRequirement struct {
	// Max is how many vulnerabilities of a severity there may be; -1 is any number. None of a severity that it does not name.
	// +optional
	Max VulnerabilityCounts `json:"max,omitempty"`
	// Unfixed says whether vulnerabilities that no newer version mends count: Count, or Ignore.
	// +kubebuilder:default=Count
	// +kubebuilder:validation:Enum=Count;Ignore
	Unfixed string `json:"unfixed,omitempty"`
	// MaxFeedAge is how old the feed of vulnerabilities may have been when the image was scanned.
	// +kubebuilder:default="168h"
	MaxFeedAge *metav1.Duration `json:"maxFeedAge,omitempty"`
}

// VulnerabilityCounts is a number of vulnerabilities for each severity.
type VulnerabilityCounts struct {
	// +optional
	// +kubebuilder:validation:Minimum=-1
	Critical int32 `json:"critical,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=-1
	High int32 `json:"high,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=-1
	Medium int32 `json:"medium,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=-1
	Low int32 `json:"low,omitempty"`
	// Unknown are those of which the feed does not say how severe they are.
	// +optional
	// +kubebuilder:validation:Minimum=-1
	Unknown int32 `json:"unknown,omitempty"`
}

// ImageWaiver lets one rule fail, or one vulnerability be there, in all images of the class or in those that it names, until it ends. From then on new
// pods are refused; those that run stay.
//
// +kubebuilder:validation:XValidation:rule="has(self.rule) != has(self.vulnerability)",message="a waiver names a rule or a vulnerability"
type ImageWaiver struct {
	// Rule is the id of a rule.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Rule string `json:"rule,omitempty"`
	// Vulnerability is the id of a vulnerability (CVE-2026-12345).
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Vulnerability string `json:"vulnerability,omitempty"`
	// Repository is that of the images which it is for, with its registry (registry.example/team/app). None means any.
	// +optional
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$`
	Repository string `json:"repository,omitempty"`
	// Digest is that of the only image which it is for. None means any.
	// +optional
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	Digest string `json:"digest,omitempty"`
	// Reason is why.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Reason string `json:"reason"`
	// Owner is who answers for it.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Owner string `json:"owner"`
	// Until is when it ends.
	Until metav1.Time `json:"until"`
}

// Words of the fields above.
const (
	Fail   = "Fail"
	Ignore = "Ignore"
	Count  = "Count"
)
