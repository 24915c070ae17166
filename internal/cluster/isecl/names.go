// Package isecl keeps what users of Intel SecL-DC (isecl) build on: its labels, annotation and taint of nodes have their names here, and its object HostAttributesCrd
// is written here, from the NodeTrusts.
//
// It is for migration: pods, dashboards and scripts that know isecl's names go on working. None of it is protected as our own names are: a kubelet may set
// such labels on its own node until they are put right, and whoever may write the object may lie in it. Nothing of Touchstone reads them.
package isecl

import (
	"strings"

	"touchstone.dev/touchstone/internal/appraisal"
)

// Names of labels, annotations and the taint, with isecl's default prefix.
const (
	Prefix   = "isecl."
	Trusted  = "isecl.trusted"
	Expiry   = "HvsTrustExpiry"       // label
	Report   = "HvsSignedTrustReport" // annotation: our signed result, which isecl's scheduler extender cannot verify
	Taint    = "untrusted"
	TimeForm = "2006-01-02T15.04.05Z" // of the label: no colons
)

// Mark is our own annotation of nodes on which these names are ours: they are taken away when they are no longer wanted, and left alone where isecl itself wrote
// them.
const Mark = "touchstone.dev/isecl-compat"

// Ours says whether a label or annotation is one of these.
func Ours(key string) bool {
	return strings.HasPrefix(key, Prefix) || key == Expiry || key == Report || key == Mark
}

// Tags are asset tags as isecl names them.
func Tags(tags map[string]string) map[string]string {
	out := map[string]string{}
	for name, value := range tags {
		out["TAG_"+name] = value
	}
	return out
}

// Features are the hardware features that a result about the node proves; of the others nothing is said. level2 is the status of Secure Boot.
func Features(softwareTPM bool, level2 string) map[string]string {
	out := map[string]string{}
	if !softwareTPM {
		out["FEATURE_TPM"] = "true"
	}
	if level2 == string(appraisal.Pass) {
		out["FEATURE_UEFI"], out["FEATURE_SecureBootEnabled"] = "true", "true"
	}
	return out
}
