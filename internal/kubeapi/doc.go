// Package kubeapi asks a Kubernetes API server the few things that AIAS needs: whose a token is (TokenReview, authentication.k8s.io/v1), and to keep
// a ConfigMap as it should be (server-side apply). It is plain HTTPS with a token of AIAS's own, which is read anew from its file as the kubelet
// writes it anew. Answers are bounded; one that is not understood is an error, never a yes.
package kubeapi
