package authority

import (
	"fmt"
	"net/http"
	"strings"

	"touchstone.dev/touchstone/internal/protocol"
)

// maxClearReason bounds the reason of a person, in bytes: it stands in the ledger for ever.
const maxClearReason = 500

func (d *detection) view(node string) protocol.Detection {
	return protocol.Detection{
		Node: node, ID: d.ID, Rule: d.Rule, Severity: d.Severity, Effect: d.Effect, What: d.What, Who: d.Who, Techniques: d.Techniques, Subject: d.Subject,
		Count: d.Count, First: d.First, Last: d.Last, Event: d.Event, Until: d.Until, Ends: d.ends(), Harmless: d.Harmless, Remedy: d.Remedy,
		Namespace: d.Namespace, Pod: d.Pod,
	}
}

func views(node string, ds []detection) []protocol.Detection {
	out := make([]protocol.Detection, 0, len(ds))
	for i := range ds {
		out = append(out, ds[i].view(node))
	}
	return out
}

func (n *node) detections() []protocol.Detection {
	n.watch.mu.Lock()
	defer n.watch.mu.Unlock()
	return views(n.name, n.watch.list())
}

func (a *Authority) getDetections(w http.ResponseWriter, _ *http.Request, _ identity) error {
	out := protocol.DetectionList{Detections: []protocol.Detection{}}
	for _, n := range a.all() {
		out.Detections = append(out.Detections, n.detections()...)
	}
	return answer(w, out)
}

func (a *Authority) getNodeDetections(w http.ResponseWriter, r *http.Request, _ identity) error {
	n, err := a.target(r)
	if err != nil {
		return err
	}
	return answer(w, protocol.DetectionList{Detections: n.detections()})
}

// postDetectionsClear ends detections because a person looked. Who does it and why goes into the ledger.
func (a *Authority) postDetectionsClear(w http.ResponseWriter, r *http.Request, id identity) error {
	n, err := a.target(r)
	if err != nil {
		return err
	}
	var req protocol.ClearRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	reason := strings.TrimSpace(req.Reason)
	if reason == "" || len(reason) > maxClearReason {
		return refuse(http.StatusBadRequest, "reason", "a detection is cleared with a reason", fmt.Sprintf("%d bytes", len(reason)), "say in at most 500 bytes what was found out: --reason")
	}
	which := r.PathValue("which")
	cleared, err := a.clearDetections(r.Context(), n, which, a.act(id, "detection.clear", n.name, which+": "+reason))
	if err != nil {
		return err
	}
	if len(cleared) == 0 {
		return refuse(http.StatusNotFound, "no-detection", "this node has no such detection", clip(which, maxName), "list them: touchstone audit detections "+n.name)
	}
	a.log.Info("detections cleared", "node", n.name, "which", which, "detections", len(cleared), "operator", id.name, "reason", reason)
	return answer(w, protocol.DetectionList{Detections: views(n.name, cleared)})
}
