//go:build tools

// Package components names the programs of Kubernetes that the tests run. It is a module of its own, so that the product does not
// depend on them; k8s.io/kubernetes takes its staging modules from its own tree, hence the list of replacements in go.mod.
package components

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-proxy"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
	_ "k8s.io/kubernetes/cmd/kubectl"
	_ "k8s.io/kubernetes/cmd/kubelet"
)
