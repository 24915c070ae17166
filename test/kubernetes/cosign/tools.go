//go:build tools

// Package cosign names the program that signs images for the tests. It is a module of its own, so that the product does not depend
// on it.
package cosign

import _ "github.com/sigstore/cosign/v3/cmd/cosign"
