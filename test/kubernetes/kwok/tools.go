//go:build tools

// Package kwok names the program that simulates nodes for tests of scale. It is a module of its own, so that the product does not
// depend on it.
package kwok

import _ "sigs.k8s.io/kwok/cmd/kwok"
