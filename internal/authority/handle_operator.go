package authority

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"touchstone.dev/touchstone/internal/assettag"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
)

// target returns the node that a path names.
func (a *Authority) target(r *http.Request) (*node, error) {
	name := r.PathValue("node")
	if n := a.node(name); n != nil {
		return n, nil
	}
	return nil, refuse(http.StatusNotFound, "no-node", fmt.Sprintf("no node %q is enrolled", clip(name, maxName)), "", "list the nodes: touchstone nodes")
}

// act is the record of what an operator does.
func (a *Authority) act(id identity, what, object, detail string) store.Act {
	return store.Act{At: a.now(), Operator: id.name, Act: what, Object: object, Detail: detail}
}

func (a *Authority) getNodes(w http.ResponseWriter, _ *http.Request, _ identity) error {
	all := a.all()
	out := protocol.NodeList{Nodes: make([]protocol.Node, len(all))}
	for i, n := range all {
		out.Nodes[i] = n.view(a.now())
	}
	return answer(w, out)
}

func (a *Authority) getNode(w http.ResponseWriter, r *http.Request, _ identity) error {
	n, err := a.target(r)
	if err != nil {
		return err
	}
	return answer(w, n.view(a.now()))
}

func (a *Authority) deleteNode(w http.ResponseWriter, r *http.Request, id identity) error {
	n, err := a.target(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), handleTime)
	defer cancel()
	if err := n.lock(ctx); err != nil {
		return err
	}
	defer n.unlock()
	c := &store.Change{Node: n.name, At: a.now(), Cause: protocol.CauseOperator, From: n.trust, Reason: "removed by operator " + id.name}
	if err := a.store.Delete(ctx, n.id, c, a.act(id, "node.delete", n.name, "")); err != nil {
		return err
	}
	a.feed.step(protocol.NodeResult{Node: n.name, Removed: true}, func() { a.put(nil, n) })
	a.changes.signal()
	if err := a.audit.archive.Remove(n.name); err != nil {
		a.log.Error("the audit events of a removed node are still there", "node", n.name, "err", err)
	}
	a.dropScanDocuments(n.id)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *Authority) getVerdict(w http.ResponseWriter, r *http.Request, _ identity) error {
	n, err := a.target(r)
	if err != nil {
		return err
	}
	v, err := a.verdictOf(r.Context(), n)
	if err != nil {
		return err
	}
	out := protocol.Report{Node: n.view(a.now()), Verdict: v}
	if out.Node.SoftwareTPM {
		out.Notes = append(out.Notes, "software TPM: this node's TPM is a program whose keys can be copied; only softwareTPMRoots vouch for it")
	}
	if !out.Node.Expires.IsZero() && !a.now().Before(out.Node.Expires) {
		out.Notes = append(out.Notes, "the verdict below is the last one and has expired: "+out.Node.Reason)
	}
	if n := &out.Node; len(n.Tags) > 0 && !n.TagsProven {
		out.Notes = append(out.Notes, fmt.Sprintf("asset tags %s (serial %d) are not proven", assettag.Text(n.Tags), n.TagSerial))
	}
	return answer(w, out)
}

func (a *Authority) getResult(w http.ResponseWriter, r *http.Request, _ identity) error {
	n, err := a.target(r)
	if err != nil {
		return err
	}
	jwt, err := a.store.Result(r.Context(), n.id)
	if notFound(err) {
		return refuse(http.StatusNotFound, "no-result", "this node has no valid result", n.view(a.now()).Reason, "wait for its next attestation")
	}
	if err != nil {
		return err
	}
	return answer(w, protocol.SignedResult{Node: n.name, Result: jwt, Expires: n.view(a.now()).Expires})
}

func (a *Authority) getEvidence(w http.ResponseWriter, r *http.Request, _ identity) error {
	n, err := a.target(r)
	if err != nil {
		return err
	}
	n.mu.RLock()
	last := n.lastKind()
	n.mu.RUnlock()
	kind, ok := map[string]store.Kind{whichGood: store.LastGood, whichBad: store.FirstBad, whichLast: last}[r.PathValue("which")]
	if !ok {
		return refuse(http.StatusNotFound, "no-evidence", "there is no such evidence", "", "ask for last-good, first-bad or last")
	}
	doc, err := a.document(r.Context(), n, kind)
	if notFound(err) {
		return refuse(http.StatusNotFound, "no-evidence", "no such evidence is kept of this node", err.Error(), "")
	}
	if err != nil {
		return err
	}
	if len(doc.AK) == 0 {
		// With the key of the enrolment in it the document can be judged offline.
		n.mu.RLock()
		doc.AK = n.ak.Area()
		n.mu.RUnlock()
	}
	b, err := evidence.Encode(doc)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", n.name+"-"+r.PathValue("which")+".cbor"))
	return text(w, protocol.MediaTypeEvidence, b)
}

func (a *Authority) postRebind(w http.ResponseWriter, r *http.Request, id identity) error {
	n, err := a.target(r)
	if err != nil {
		return err
	}
	var req protocol.RebindRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	ek, err := optionalHash(req.EKSHA256)
	if err != nil {
		return err
	}
	life, err := lifetime(req.Seconds)
	if err != nil {
		return err
	}
	if err := n.lock(r.Context()); err != nil {
		return err
	}
	defer n.unlock()
	until := a.now().Add(life)
	if err := a.store.Rebind(r.Context(), n.id, ek, until, a.act(id, "node.rebind", n.name, req.EKSHA256)); err != nil {
		return err
	}
	n.mu.Lock()
	n.rebindTill = until
	n.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// maxLifetime bounds tokens and rebinds, so that nothing an operator forgets stays open for ever.
const maxLifetime = 365 * 24 * time.Hour

func lifetime(seconds int64) (time.Duration, error) {
	if seconds == 0 {
		return time.Hour, nil
	}
	if seconds < 0 || seconds > int64(maxLifetime/time.Second) {
		return 0, refuse(http.StatusBadRequest, "lifetime", "the lifetime is not acceptable", fmt.Sprintf("%d seconds", seconds), "want 1 second to a year")
	}
	return time.Duration(seconds) * time.Second, nil
}

func optionalHash(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	h, err := pathHash(s)
	return h[:], err
}

func pathHash(s string) ([32]byte, error) {
	h, err := parseHash(s)
	if err != nil {
		return h, refuse(http.StatusBadRequest, "ek-hash", "this is no hash of an endorsement key", err.Error(),
			"give the SHA-256 of the DER SubjectPublicKeyInfo")
	}
	return h, nil
}

func (a *Authority) getPolicy(w http.ResponseWriter, _ *http.Request, _ identity) error {
	return text(w, "application/yaml", a.snapshot.Load().Policy)
}

func (a *Authority) postReload(w http.ResponseWriter, r *http.Request, id identity) error {
	out, err := a.Reload(r.Context())
	if err != nil {
		return refuse(http.StatusUnprocessableEntity, "reload", "policy or references cannot be used; the old ones stay in force", err.Error(), "correct them and reload")
	}
	if err := a.store.PutSettings(r.Context(), nil, ptr(a.act(id, "reload", out.ID, ""))); err != nil {
		return err
	}
	return answer(w, out)
}

func ptr[T any](v T) *T { return &v }

func (a *Authority) getReferences(w http.ResponseWriter, _ *http.Request, _ identity) error {
	refs := a.snapshot.Load().References
	if refs == nil {
		refs = []protocol.Reference{}
	}
	return answer(w, protocol.ReferenceList{Snapshot: a.snapshotInfo(), References: refs})
}

// change turns a record of the history into a message.
func change(c store.Change) (protocol.Change, error) {
	out := protocol.Change{ID: c.ID, Node: c.Node, At: c.At, Cause: c.Cause, From: c.From, To: c.To, Reason: c.Reason, Snapshot: c.Snapshot}
	if len(c.Levels) > 0 {
		if err := json.Unmarshal(c.Levels, &out.Levels); err != nil {
			return out, errors.Join(errors.New("history is damaged"), err)
		}
	}
	return out, nil
}
