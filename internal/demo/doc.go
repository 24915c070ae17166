// Package demo shows Touchstone on one machine, without Kubernetes: AIAS on a loopback port, and three workers with a software TPM
// each.
//
// What a worker's TPM is extended with comes from a real measured boot, so its quotes are real ones, and AIAS judges them by
// references that were made from the packages that booted. The agents are the product's own; each reads a folder of its own instead of
// the host's root. Then three attacks happen, one worker each: an unknown program, a boot with another command line and without Secure
// Boot, a replayed quote. The demo fails when a verdict is not the one that the story tells.
package demo
