package authority

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"touchstone.dev/touchstone/internal/compliance/verdict"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
)

// scanAsk is a scan that an operator asked for. The store keeps its number, which is the time in milliseconds.
type scanAsk struct {
	number    int64
	at        time.Time
	documents bool // ARF and HTML too
}

// postCompliance takes a scan of the node that calls. A node that has not attested lately is refused: nobody knows what made the result.
func (a *Authority) postCompliance(w http.ResponseWriter, r *http.Request, id identity) error {
	n, err := a.nodeOf(id)
	if err != nil {
		return err
	}
	if !n.limit.Allow() {
		return tooMany(w, "this node sends too much")
	}
	var req protocol.ComplianceReport
	if err := decode(w, r, &req); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), handleTime)
	defer cancel()
	if err := n.lock(ctx); err != nil {
		return err
	}
	defer n.unlock()
	now := a.now()
	if n.attested.IsZero() || over(n.expires, now) {
		return refuse(http.StatusForbidden, "not-attested", "the node has no valid attestation", "", "attest first; the agent sends the scan again")
	}
	rules := &a.snapshot.Load().Compliance
	if err := a.cpu.Acquire(ctx, 1); err != nil { // a large result takes time and memory, as Evidence does
		return err
	}
	rec, err := readScan(n.name, &req, rules, now)
	a.cpu.Release(1)
	if err != nil {
		return err
	}
	was := n.trust
	if err := a.takeScan(ctx, n, rec, req.TestResult); err != nil {
		return err
	}
	if ask := n.scanAsk.Load(); ask != nil && req.Asked >= ask.number {
		if err := a.store.DropScanAsk(ctx, n.id, ask.number); err != nil {
			return err
		}
		n.scanAsk.CompareAndSwap(ask, nil)
	}
	out := protocol.ComplianceAnswer{Trusted: n.trust == protocol.Trusted, Summary: "no result: " + rec.Error}
	if rec.Scan != nil {
		out.Summary = rec.Scan.Summary()
		for _, p := range verdict.Judge(rules, rec.Scan, now).Problems {
			out.Problems = append(out.Problems, p.Message)
		}
	}
	a.log.Info("compliance scan", "node", n.name, "summary", out.Summary, "trust", n.trust, "was", was)
	return answer(w, out)
}

func (a *Authority) getCompliance(w http.ResponseWriter, r *http.Request, _ identity) error {
	n, err := a.target(r)
	if err != nil {
		return err
	}
	out := protocol.NodeCompliance{Node: n.name, Documents: a.scanDocuments(n.id)}
	if ask := n.scanAsk.Load(); ask != nil {
		out.Asked = ask.at
	}
	kept, err := a.store.Compliance(r.Context(), n.id)
	if notFound(err) {
		return answer(w, out)
	}
	if err != nil {
		return err
	}
	var newest, before, failed scanRecord
	for _, f := range []struct {
		from []byte
		to   *scanRecord
	}{{kept.Newest, &newest}, {kept.Previous, &before}, {kept.Error, &failed}} {
		if len(f.from) == 0 {
			continue
		}
		if err := json.Unmarshal(f.from, f.to); err != nil {
			return err
		}
	}
	out.Error, out.ErrorAt = failed.Error, failed.At
	if newest.Scan != nil {
		out.Scan, out.Received, out.SHA256 = newest.Scan, newest.Received, newest.SHA256
		j := verdict.Judge(&a.snapshot.Load().Compliance, newest.Scan, a.now())
		out.Problems, out.Waived, out.Within = j.Problems, j.Waived, j.Within
		if before.Scan != nil {
			out.Before, out.Drift = before.Scan.At, verdict.Drift(before.Scan, newest.Scan)
		}
	}
	return answer(w, out)
}

// postScan asks a node for a scan. It learns so by its next challenge.
func (a *Authority) postScan(w http.ResponseWriter, r *http.Request, _ identity) error {
	n, err := a.target(r)
	if err != nil {
		return err
	}
	now := a.now()
	ask := &scanAsk{number: now.UnixMilli(), at: now, documents: r.URL.Query().Get("documents") == "1"}
	if before := n.scanAsk.Load(); before != nil {
		ask.documents = ask.documents || before.documents
	}
	if err := a.store.PutScanAsk(r.Context(), store.ScanAsk{Node: n.id, Number: ask.number, Documents: ask.documents}); err != nil {
		return err
	}
	n.scanAsk.Store(ask)
	return answer(w, protocol.ScanRequest{Node: n.name, Number: ask.number, At: ask.at, Documents: ask.documents})
}
