// Package v1alpha1 is the Kubernetes API of Touchstone, group touchstone.dev: what AIAS says of each node (NodeTrust) and of images (ImageTrust), what it appraises
// by (TrustPolicy), what a workload demands of a node (TrustClass), what an administrator says of a node (AssetTag), and how
// verdicts are enforced (TrustEnforcement).
//
// The manifests in crds/ and the deep copies are generated from these types (scripts/generate); a test holds them equal.
//
// +kubebuilder:object:generate=true
// +groupName=touchstone.dev
package v1alpha1
