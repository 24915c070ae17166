package render

import (
	"fmt"
	"io"
	"strings"

	"touchstone.dev/touchstone/internal/appraisal"
)

// Explanation is which nodes meet the trust class of a pod.
type Explanation struct {
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	Class     string `json:"class"`
	// ClassOf is who has the class: "pod" or "namespace".
	ClassOf string `json:"classOf"`
	// RunsOn is the node of the pod, when it has one.
	RunsOn string       `json:"runsOn,omitempty"`
	Nodes  []NodeAnswer `json:"nodes"`
}

// NodeAnswer is whether a node meets a class, and what it lacks.
type NodeAnswer struct {
	Node    string   `json:"node"`
	Meets   bool     `json:"meets"`
	Missing []string `json:"missing,omitempty"`
}

// Met counts the nodes that meet the class.
func (e *Explanation) Met() int {
	n := 0
	for _, a := range e.Nodes {
		if a.Meets {
			n++
		}
	}
	return n
}

// Explanation draws which nodes meet the class of a pod, and what the others lack.
func (s Style) Explanation(w io.Writer, e *Explanation) {
	place := "has no node yet"
	if e.RunsOn != "" {
		place = "is on " + Clean(e.RunsOn)
	}
	s.Paragraph(w, 0, fmt.Sprintf("pod %s/%s %s; its trust class is %s (by the label of the %s), which %d of %d nodes meet",
		Clean(e.Namespace), Clean(e.Pod), place, Clean(e.Class), Clean(e.ClassOf), e.Met(), len(e.Nodes)))
	if len(e.Nodes) == 0 {
		return
	}
	rows := make([]row, len(e.Nodes))
	for i, a := range e.Nodes {
		meets := cell{"yes", func(text string) string { return s.Status(appraisal.Pass, text) }}
		if !a.Meets {
			meets = cell{"no", func(text string) string { return s.Status(appraisal.Fail, text) }}
		}
		rows[i] = row{cells: []cell{plain(Clean(a.Node)), meets}}
		if len(a.Missing) > 0 {
			rows[i].note = s.under(strings.Join(a.Missing, "; "))
		}
	}
	s.table(w, []string{"node", "meets"}, rows)
}
