//go:build tools

// Package containerd names a containerd 1.7 for the tests of images. It is a module of its own, so that the product does not depend on it.
package containerd

import (
	_ "github.com/containerd/containerd/cmd/containerd"
	_ "github.com/containerd/containerd/cmd/containerd-shim-runc-v2"
)
