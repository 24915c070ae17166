// Package kubetest runs a real API server of Kubernetes, with its etcd, for tests: on free ports of loopback, with certificates of its
// own, authorization by Node and RBAC, and a key that signs tokens of service accounts, so that TokenRequest and TokenReview work.
//
// There is no controller manager: no namespace gets a "default" ServiceAccount by itself (make it before the first pod), nothing is
// collected, and a deleted namespace stays Terminating. The programs come from scripts/kubernetes; the environment variable
// TOUCHSTONE_KUBERNETES names the folder that has them, else the script is asked.
package kubetest
