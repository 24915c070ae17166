//go:build tools

// Package helm names the program that the tests check the chart with. It is a module of its own, so that the product does not depend
// on it.
package helm

import _ "helm.sh/helm/v4/cmd/helm"
