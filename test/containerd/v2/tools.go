//go:build tools

// Package containerd names a containerd 2.x for the tests of images. It is a module of its own, so that the product does not depend on it.
package containerd

import (
	_ "github.com/containerd/containerd/v2/cmd/containerd"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"
)
