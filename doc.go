// Package touchstone is the root of Touchstone, a trusted container platform for Kubernetes. It holds no code, only the tests
// that keep the house in order: package comments, the direction of imports, purity, dependencies, documents.
//
// The programs are in cmd, everything else in internal; docs/concepts.md explains the words used here.
package touchstone
