// Package class decides which nodes meet a TrustClass, and says what is missing when one does not. It is pure: the controller labels
// nodes by it, and `touchstone explain` prints the same words. The decision itself is package release's, which keys ask as well.
package class

import (
	"time"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/release"
)

// Node is what a class is held against.
type Node = release.Node

// Answer is whether a node meets a class.
type Answer = release.Answer

// FromTrust is what a NodeTrust says of its node.
func FromTrust(nt *v1alpha1.NodeTrust) Node {
	s := &nt.Status
	n := Node{Why: s.Reason, SoftwareTPM: s.SoftwareTPM, Tags: s.Tags, Levels: map[int32]string{}, Reasons: map[int32]string{}}
	for _, l := range s.Levels {
		n.Levels[l.Level], n.Reasons[l.Level] = l.Status, l.Reason
	}
	for _, c := range s.Conditions {
		if c.Type == v1alpha1.ConditionBound && c.Status == "True" {
			n.Valid = true
		}
	}
	if s.VerifiedAt != nil {
		n.Issued = s.VerifiedAt.Time
	}
	if s.ExpiresAt != nil {
		n.Expires = s.ExpiresAt.Time
	}
	return n
}

// Meets holds a node against a class. A field of the class that is empty is the strict choice.
func Meets(spec *v1alpha1.TrustClassSpec, n Node, now time.Time) Answer {
	c := Conditions(spec)
	return release.Meets(&c, n, now)
}

// Conditions are what a class demands of a node.
func Conditions(spec *v1alpha1.TrustClassSpec) release.Conditions {
	c := release.Conditions{Levels: spec.Levels, Warnings: spec.Warnings, SoftwareTPM: spec.SoftwareTPM}
	if spec.MaxResultAge != nil {
		age := release.Duration(spec.MaxResultAge.Duration)
		c.MaxResultAge = &age
	}
	if len(spec.Tags) > 0 {
		c.Tags = make(map[string][]string, len(spec.Tags))
		for name, values := range spec.Tags {
			c.Tags[name] = values
		}
	}
	return c
}
