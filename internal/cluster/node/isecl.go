package node

import (
	"maps"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"touchstone.dev/touchstone/internal/cluster/board"
	"touchstone.dev/touchstone/internal/cluster/isecl"
)

// isecl adds what --isecl-compat asks for. The times and the report are those of the NodeTrust as it is written, not of each new result.
func (w *wish) isecl(e *board.Entry, expires *metav1.Time, report string, held, stay bool) {
	w.prefixes = append(w.prefixes, isecl.Prefix, isecl.Expiry)
	w.labels[isecl.Trusted] = strconv.FormatBool(e.Verdict.Trusted)
	named := isecl.Tags(e.Class.Tags)
	if e.Verdict.Valid {
		maps.Copy(named, isecl.Features(e.Class.SoftwareTPM, e.Class.Levels[2]))
	}
	for name, value := range named {
		w.labels[isecl.Prefix+name] = value
	}
	w.notes = map[string]string{isecl.Report: report, isecl.Mark: "true"}
	if expires != nil {
		w.labels[isecl.Expiry] = expires.UTC().Format(isecl.TimeForm)
	}
	w.taint(isecl.Taint, "true", "true", e, held, stay)
}

// noISecL takes away what was written while --isecl-compat was on: a label that says trusted, and that nobody keeps, would say so for ever.
func (w *wish) noISecL(n *corev1.Node) {
	if n.Annotations[isecl.Mark] == "" {
		return
	}
	w.prefixes = append(w.prefixes, isecl.Prefix, isecl.Expiry)
	w.notes = map[string]string{isecl.Report: "", isecl.Mark: ""}
	w.unset = append(w.unset, taint{isecl.Taint, "true", corev1.TaintEffectNoSchedule}, taint{isecl.Taint, "true", corev1.TaintEffectNoExecute})
}
