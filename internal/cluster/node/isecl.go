package node

import (
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"touchstone.dev/touchstone/internal/cluster/board"
)

// Names that users of Intel SecL-DC build on. Unlike ours they are not protected: a kubelet may set such labels on its own node.
const (
	iseclPrefix   = "isecl."
	iseclTrusted  = "isecl.trusted"
	iseclTag      = "isecl.TAG_"
	iseclExpiry   = "HvsTrustExpiry"
	iseclReport   = "HvsSignedTrustReport"
	iseclTaint    = "untrusted"
	iseclTimeForm = "2006-01-02T15.04.05Z"
)

// isecl says whether a label or annotation is one of SecL's.
func isecl(key string) bool {
	return strings.HasPrefix(key, iseclPrefix) || key == iseclExpiry || key == iseclReport
}

// isecl adds what --isecl-compat asks for. The times and the report are those of the NodeTrust as it is written, not of each new result.
func (w *wish) isecl(e *board.Entry, expires *metav1.Time, report string, held, stay bool) {
	w.prefixes = append(w.prefixes, iseclPrefix, iseclExpiry)
	w.labels[iseclTrusted] = strconv.FormatBool(e.Verdict.Trusted)
	for name, value := range e.Class.Tags {
		w.labels[iseclTag+name] = value
	}
	w.notes = map[string]string{iseclReport: report}
	if expires != nil {
		w.labels[iseclExpiry] = expires.UTC().Format(iseclTimeForm)
	}
	w.taint(iseclTaint, "true", "true", e, held, stay)
}
