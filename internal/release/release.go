// Package release decides whether a key may be given to a node now, or a pod be placed on it. Disk keys, image keys and TrustClasses ask the same
// question in the same words, and get the same answer: what a class refuses, a key refuses.
//
// It is pure. Conditions are what whoever owns the key demands; what they leave out is the strict choice, so that a record that lost a field
// never releases more. Node is what is known of the node, from a verified Attestation Result.
package release

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
)

// Node is what conditions are held against.
type Node struct {
	// Valid is whether there is a result about this very node; Why says why not.
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

// Answer is whether a node meets conditions.
type Answer struct {
	Meets   bool
	Missing []string // what is missing, in words; empty when it meets
	// Until is when a node that meets the conditions stops to, unless a newer result comes.
	Until time.Time
}

// Meets holds a node against conditions. A condition that is empty is the strict choice.
func Meets(c *Conditions, n Node, now time.Time) Answer {
	if !n.Valid {
		return Answer{Missing: []string{orElse(n.Why, "there is no fresh result about the node")}}
	}
	a := Answer{Until: n.Expires}
	if !now.Before(n.Expires) {
		a.Missing = append(a.Missing, "its result has expired")
	}
	a.levels(c, n)
	if c.SoftwareTPM != Allow && n.SoftwareTPM {
		a.Missing = append(a.Missing, "its TPM is a program (softwareTPM: Deny)")
	}
	a.age(c, n, now)
	a.tags(c, n)
	a.Meets = len(a.Missing) == 0
	return a
}

var allLevels = []int32{1, 2, 3, 4, 5}

func (a *Answer) levels(c *Conditions, n Node) {
	levels := c.Levels
	if len(levels) == 0 {
		levels = allLevels
	}
	for _, l := range slices.Sorted(slices.Values(levels)) {
		status := n.Levels[l]
		switch {
		case status == string(appraisal.Pass):
		case status == string(appraisal.Warn) && c.Warnings != Deny:
		default:
			text := fmt.Sprintf("level %d is %s", l, orElse(status, string(appraisal.Unknown)))
			if why := n.Reasons[l]; why != "" {
				text += " (" + why + ")"
			}
			a.Missing = append(a.Missing, text)
		}
	}
}

func (a *Answer) age(c *Conditions, n Node, now time.Time) {
	if c.MaxResultAge == nil {
		return
	}
	age := time.Duration(*c.MaxResultAge)
	end := n.Issued.Add(age)
	if end.Before(a.Until) {
		a.Until = end
	}
	if !now.Before(end) {
		a.Missing = append(a.Missing, fmt.Sprintf("its result is older than %s", age))
	}
}

func (a *Answer) tags(c *Conditions, n Node) {
	for _, name := range slices.Sorted(maps.Keys(c.Tags)) {
		want, have := c.Tags[name], n.Tags[name]
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

func orElse(s, other string) string {
	if s != "" {
		return s
	}
	return other
}
