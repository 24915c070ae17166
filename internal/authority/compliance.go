package authority

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/compliance/verdict"
	"touchstone.dev/touchstone/internal/compliance/xccdf"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
)

// staleScan is how old a scan may be when it comes in: it has just been made, or waited out a time in which AIAS was away.
const staleScan = 48 * time.Hour

// scanRecord is a scan as the store keeps it.
type scanRecord struct {
	Scan     *verdict.Scan `json:"scan,omitempty"`
	SHA256   string        `json:"sha256,omitempty"` // of the TestResult
	Received time.Time     `json:"received"`
	Error    string        `json:"error,omitempty"`
	At       time.Time     `json:"at,omitzero"` // of the error
}

// readScan reads a report and refuses what is not a scan of this node, now, by what the policy names.
func readScan(node string, req *protocol.ComplianceReport, rules *verdict.Rules, now time.Time) (*scanRecord, error) {
	rec := &scanRecord{Received: now.UTC().Truncate(time.Second)}
	bad := func(kind, title, detail string) error {
		return refuse(http.StatusUnprocessableEntity, kind, title, detail, "see the agent's log, and docs/compliance.md")
	}
	if len(req.TestResult) == 0 {
		if req.Error == "" {
			return nil, bad("scan", "there is neither a result nor an error", "")
		}
		rec.Error, rec.At = clip(strings.ToValidUTF8(req.Error, "?"), protocol.MaxScanError), req.At.UTC()
		return rec, fitTime(req.At, now)
	}
	for name, d := range map[string]string{"content": req.Content, "tailoring": req.Tailoring} {
		if b, err := hex.DecodeString(d); (err != nil || len(b) != sha256.Size || d != strings.ToLower(d)) && (name == "content" || d != "") {
			return nil, bad("scan", "the digest of the "+name+" is no SHA-256", clip(d, 80))
		}
	}
	if err := checkWords(req.Words); err != nil {
		return nil, bad("scan", "the words on rules are not as they must be", err.Error())
	}
	raw, err := unzip(req.TestResult)
	var r *xccdf.TestResult
	if err == nil {
		r, err = xccdf.Parse(raw)
	}
	if err != nil {
		return nil, bad("scan", "the result cannot be read", err.Error())
	}
	if got := r.Fact(xccdf.FactIdentifier); got != protocol.ScanTarget(node) {
		return nil, bad("other-target", "the result is for another target", fmt.Sprintf("want %q, got %q", protocol.ScanTarget(node), clip(got, 200)))
	}
	if err := fitTime(r.End, now); err != nil {
		return nil, err
	}
	if rules.Profile != "" && r.Profile != rules.Profile {
		return nil, bad("other-profile", "the result is for another profile than the policy names", fmt.Sprintf("want %q, got %q", rules.Profile, clip(r.Profile, 200)))
	}
	rec.Scan = verdict.NewScan(r, req.Words)
	rec.Scan.Content, rec.Scan.Tailoring = req.Content, req.Tailoring
	if rec.Scan.Tool == "" {
		rec.Scan.Tool = clip(req.Tool, 40)
	}
	if rec.Scan.Passed == 0 && len(rec.Scan.Rules) == 0 {
		return nil, bad("nothing-judged", "no rule of the result passed or failed", "the content is for another system")
	}
	if len(rules.Content) > 0 && !slices.Contains(rules.Content, req.Content) {
		return nil, bad("other-content", "the result is by content that the policy does not name", req.Content)
	}
	sum := sha256.Sum256(raw)
	rec.SHA256 = hex.EncodeToString(sum[:])
	return rec, nil
}

// fitTime refuses times that a scan made just now cannot have.
func fitTime(at, now time.Time) error {
	switch {
	case at.After(now.Add(verdict.FutureLimit)):
		return refuse(http.StatusUnprocessableEntity, "future", "the scan is of the future", at.UTC().Format(time.RFC3339), "set the clock of the worker")
	case at.Before(now.Add(-staleScan)):
		return refuse(http.StatusUnprocessableEntity, "stale", "the scan is too old to be taken", at.UTC().Format(time.RFC3339), "scan again; see the clock of the worker")
	}
	return nil
}

func checkWords(words map[string]verdict.Words) error {
	if len(words) > protocol.MaxRuleWords {
		return fmt.Errorf("%d rules, at most %d are taken", len(words), protocol.MaxRuleWords)
	}
	for id, w := range words {
		if len(id)+len(w.Title) > protocol.MaxWords || len(w.Fix) > protocol.MaxWords || !utf8.ValidString(id+w.Title+w.Fix) {
			return fmt.Errorf("rule %q: more than %d bytes, or no UTF-8", clip(id, 100), protocol.MaxWords)
		}
	}
	return nil
}

// unzip opens a TestResult, as long as it may be.
func unzip(b []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(z, xccdf.MaxTestResult+1))
	if err == nil && len(raw) > xccdf.MaxTestResult {
		err = fmt.Errorf("more than %d bytes", xccdf.MaxTestResult)
	}
	return raw, err
}

// takeScan keeps a scan and judges the node again with it. The caller holds the node.
func (a *Authority) takeScan(ctx context.Context, n *node, rec *scanRecord, packed []byte) error {
	before := n.compliance.Load()
	if before != nil && before.Scan != nil {
		at := rec.At
		if rec.Scan != nil {
			at = rec.Scan.At
		}
		if at.Before(before.Scan.At) {
			return refuse(http.StatusConflict, "older-scan", "a newer scan of this node is here", before.Scan.At.UTC().Format(time.RFC3339), "scan again")
		}
	}
	b, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	var next *claims.Compliance
	if rec.Scan != nil {
		if next, err = complianceOf(b, nil); err == nil {
			err = a.store.PutScan(ctx, n.id, b, packed)
		}
	} else {
		var newest []byte
		if old, err := a.store.Compliance(ctx, n.id); err == nil {
			newest = old.Newest
		} else if !notFound(err) {
			return err
		}
		if next, err = complianceOf(newest, b); err == nil {
			err = a.store.PutScanError(ctx, n.id, b)
		}
	}
	if err != nil {
		return err
	}
	n.compliance.Store(next)
	_, err = a.judgeAgain(ctx, n, n.tag, protocol.CauseCompliance, &store.Update{})
	return err
}

// complianceOf reads what the store keeps; nil when there is nothing.
func complianceOf(newest, failed []byte) (*claims.Compliance, error) {
	if len(newest) == 0 && len(failed) == 0 {
		return nil, nil
	}
	h := sha256.New()
	c := &claims.Compliance{}
	for _, b := range [][]byte{newest, failed} {
		fmt.Fprintf(h, "%d ", len(b))
		h.Write(b)
		if len(b) == 0 {
			continue
		}
		var rec scanRecord
		if err := json.Unmarshal(b, &rec); err != nil {
			return nil, fmt.Errorf("kept compliance scan: %w", err)
		}
		if rec.Scan != nil {
			c.Scan, c.SHA256, c.Received = rec.Scan, rec.SHA256, rec.Received
		} else {
			c.Error, c.ErrorAt = rec.Error, rec.At
		}
	}
	c.ID = hex.EncodeToString(h.Sum(nil)[:16])
	return c, nil
}

// loadScans brings the newest scan of each node into memory, and the one that was asked for.
func (a *Authority) loadScans(ctx context.Context) error {
	all, err := a.store.Compliances(ctx)
	if err != nil {
		return fmt.Errorf("load the compliance scans: %w", err)
	}
	byID := make(map[int64]*store.Compliance, len(all))
	for i := range all {
		byID[all[i].Node] = &all[i]
	}
	for _, n := range a.nodes {
		if s := byID[n.id]; s != nil {
			c, err := complianceOf(s.Newest, s.Error)
			if err != nil {
				return fmt.Errorf("node %s: %w", n.name, err)
			}
			n.compliance.Store(c)
		}
	}
	asks, err := a.store.ScanAsks(ctx)
	if err != nil {
		return fmt.Errorf("load the scans that were asked for: %w", err)
	}
	byNode := make(map[int64]*scanAsk, len(asks))
	for _, x := range asks {
		byNode[x.Node] = &scanAsk{number: x.Number, at: time.UnixMilli(x.Number), documents: x.Documents}
	}
	for _, n := range a.nodes {
		n.scanAsk.Store(byNode[n.id])
	}
	return nil
}
