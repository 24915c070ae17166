// Package class decides which nodes meet a TrustClass, and says what is missing when one does not. It is pure: the controller labels
// nodes by it, and `touchstone explain` prints the same words.
package class

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/appraisal"
)

// Node is what a class is held against.
type Node struct {
	// Valid is whether there is a fresh result about this very node; Why says why not.
	Valid bool
	Why   string
	// Levels are the statuses of levels 1 to 5, by level.
	Levels      map[int32]string
	Reasons     map[int32]string // why a level does not hold
	SoftwareTPM bool
	Tags        map[string]string // proven
	Issued      time.Time
	Expires     time.Time
}

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

// Answer is whether a node meets a class.
type Answer struct {
	Meets   bool
	Missing []string // what is missing, in words; empty when it meets
	// Until is when a node that meets the class stops to, unless a newer result comes.
	Until time.Time
}

// Meets holds a node against a class. A field of the class that is empty is the strict choice.
func Meets(spec *v1alpha1.TrustClassSpec, n Node, now time.Time) Answer {
	if !n.Valid {
		return Answer{Missing: []string{orElse(n.Why, "there is no fresh result about the node")}}
	}
	a := Answer{Until: n.Expires}
	if !now.Before(n.Expires) {
		a.Missing = append(a.Missing, "its result has expired")
	}
	a.levels(spec, n)
	if spec.SoftwareTPM != v1alpha1.Allow && n.SoftwareTPM {
		a.Missing = append(a.Missing, "its TPM is a program (softwareTPM: Deny)")
	}
	a.age(spec, n, now)
	a.tags(spec, n)
	a.Meets = len(a.Missing) == 0
	return a
}

var allLevels = []int32{1, 2, 3, 4, 5}

func (a *Answer) levels(spec *v1alpha1.TrustClassSpec, n Node) {
	levels := spec.Levels
	if len(levels) == 0 {
		levels = allLevels
	}
	for _, l := range slices.Sorted(slices.Values(levels)) {
		status := n.Levels[l]
		switch {
		case status == string(appraisal.Pass):
		case status == string(appraisal.Warn) && spec.Warnings != v1alpha1.Deny:
		default:
			text := fmt.Sprintf("level %d is %s", l, orElse(status, string(appraisal.Unknown)))
			if why := n.Reasons[l]; why != "" {
				text += " (" + why + ")"
			}
			a.Missing = append(a.Missing, text)
		}
	}
}

func (a *Answer) age(spec *v1alpha1.TrustClassSpec, n Node, now time.Time) {
	if spec.MaxResultAge == nil {
		return
	}
	end := n.Issued.Add(spec.MaxResultAge.Duration)
	if end.Before(a.Until) {
		a.Until = end
	}
	if !now.Before(end) {
		a.Missing = append(a.Missing, fmt.Sprintf("its result is older than %s", spec.MaxResultAge.Duration))
	}
}

func (a *Answer) tags(spec *v1alpha1.TrustClassSpec, n Node) {
	for _, name := range sortedKeys(spec.Tags) {
		want, have := spec.Tags[name], n.Tags[name]
		if have != "" && slices.Contains(want, have) {
			continue
		}
		text := fmt.Sprintf("tag %s is not proven", name)
		if have != "" {
			text = fmt.Sprintf("tag %s is %s", name, have)
		}
		a.Missing = append(a.Missing, text+", want "+strings.Join(want, " or "))
	}
}

func sortedKeys(m map[string]v1alpha1.TagValues) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func orElse(s, other string) string {
	if s != "" {
		return s
	}
	return other
}
