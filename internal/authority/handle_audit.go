package authority

import (
	"context"
	"encoding/binary"
	"errors"
	"net/http"
	"strconv"
	"time"

	"touchstone.dev/touchstone/internal/audit/archive"
	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
)

// auditRoom is what a batch takes in memory while it is taken in, in bytes, beside its body.
const auditRoom = chain.MaxBatch

func (a *Authority) getAudit(w http.ResponseWriter, _ *http.Request, id identity) error {
	n, err := a.nodeOf(id)
	if err != nil {
		return err
	}
	if !n.limit.Allow() {
		return tooMany(w, "this node asks too often")
	}
	f, err := a.audit.archive.Node(n.name)
	if err != nil {
		return err
	}
	return answer(w, ack(f.Position()))
}

// postAudit takes audit events of a node: in order, each once, on disk before the answer. Who sends too fast waits, and loses nothing: the
// node keeps what is not acknowledged.
func (a *Authority) postAudit(w http.ResponseWriter, r *http.Request, id identity) error {
	n, err := a.nodeOf(id)
	if err != nil {
		return err
	}
	size := r.ContentLength
	switch {
	case r.Header.Get("Content-Type") != protocol.MediaTypeAudit:
		return refuse(http.StatusUnsupportedMediaType, "media-type", "audit events are "+protocol.MediaTypeAudit, "", "set the Content-Type")
	case size < 0:
		return refuse(http.StatusLengthRequired, "length", "the length of the batch must be known", "", "set the Content-Length")
	case size > chain.MaxBatch:
		return &http.MaxBytesError{Limit: chain.MaxBatch}
	}
	now := a.now()
	if l := a.audit.limit(n.name, a.cfg.Audit.PerNode); !l.AllowN(now, int(max(size, 1024))) {
		return tooMany(w, "this node sends too many audit events")
	}
	defer n.bodies.Add(-1)
	if n.bodies.Add(1) > nodeBodies {
		return tooMany(w, "this node sends too much at the same time")
	}
	ctx, cancel := context.WithTimeout(r.Context(), handleTime)
	defer cancel()
	if err := a.memory.Acquire(ctx, size+auditRoom); err != nil {
		return err
	}
	defer a.memory.Release(size + auditRoom)
	body, err := readBody(w, r, size)
	if err != nil {
		return refuse(http.StatusBadRequest, "malformed-audit", "the audit events did not arrive whole", err.Error(), "try again")
	}
	batch, err := chain.Unpack(body)
	if err != nil {
		return refuse(http.StatusBadRequest, "malformed-audit", "the audit events cannot be read", err.Error(), "update the trust agent; see its log")
	}
	return a.takeAudit(w, n, batch, r.URL.Query().Get("lost") == "1") //nolint:contextcheck // what it judges outlives the request
}

// takeAudit puts a batch into the archive and answers. What it shows about the node is judged at once.
func (a *Authority) takeAudit(w http.ResponseWriter, n *node, batch *chain.Batch, lost bool) error {
	f, err := a.audit.archive.Node(n.name)
	if err != nil {
		return err
	}
	n.mu.RLock()
	enrolled, gone := n.enrolled, n.gone
	n.mu.RUnlock()
	if gone {
		return errGone
	}
	if err := a.catchUp(n, f); err != nil {
		return err
	}
	before := f.State()
	at, err := f.Append(batch, enrolled, lost)
	after := f.State()
	if before.Open() == nil && after.Open() != nil {
		go a.judgeAudit(n)
	}
	switch {
	case errors.Is(err, archive.ErrBehind):
		return a.auditConflict(protocol.ProblemAuditBehind, "entries before this batch are missing here", at)
	case errors.Is(err, archive.ErrFork):
		return a.auditConflict(protocol.ProblemAuditFork, "the batch contradicts the entries that are here", at)
	case errors.Is(err, archive.ErrFull):
		a.log.Error("audit events cannot be kept", "node", n.name, "err", err)
		w.Header().Set("Retry-After", "5")
		return refuse(http.StatusInsufficientStorage, "full", "AIAS cannot keep audit events", "", "see the log of AIAS; the node keeps them meanwhile")
	case err != nil:
		return err
	}
	out := ack(at)
	out.Attest = a.unsigned(n)
	return answer(w, out)
}

func (a *Authority) auditConflict(kind, title string, at chain.Position) error {
	p := ack(at)
	return &protocol.Problem{Type: kind, Title: title, Status: http.StatusConflict, Remedy: "go on from where AIAS is", Audit: &p}
}

// judgeAudit judges a node whose audit chain is not as it should be.
func (a *Authority) judgeAudit(n *node) {
	ctx, cancel := context.WithTimeout(context.Background(), handleTime)
	defer cancel()
	if err := a.judgeAudited(ctx, n); err != nil {
		a.log.Error("judge a node again for its audit chain", "node", n.name, "err", err)
	}
}

// auditOf returns the node that a request is about, and its audit archive.
func (a *Authority) auditOf(r *http.Request) (*node, *archive.Node, error) {
	n, err := a.target(r)
	if err != nil {
		return nil, nil, err
	}
	f, err := a.audit.archive.Node(n.name)
	return n, f, err
}

func (a *Authority) getNodeAudit(w http.ResponseWriter, r *http.Request, _ identity) error {
	n, f, err := a.auditOf(r)
	if err != nil {
		return err
	}
	st := f.State()
	return answer(w, auditReport(n.name, &st))
}

func (a *Authority) postAuditAccept(w http.ResponseWriter, r *http.Request, id identity) error {
	n, f, err := a.auditOf(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), handleTime)
	defer cancel()
	if err := n.lock(ctx); err != nil {
		return err
	}
	defer n.unlock()
	st, open := f.State(), 0
	for i := range st.Findings {
		if st.Findings[i].Accepted == nil {
			open++
		}
	}
	if err := a.recordAct(ctx, n, a.act(id, "audit.accept", n.name, strconv.Itoa(open)+" findings")); err != nil {
		return err
	}
	if _, err := f.Accept(id.name); err != nil {
		return err
	}
	if _, err := a.judgeAgain(ctx, n, n.tag, protocol.CauseOperator, &store.Update{}); err != nil {
		return err
	}
	st = f.State()
	return answer(w, auditReport(n.name, &st))
}

// getAuditEvents streams batches: those of a time, then with follow=1 each new one as it comes.
func (a *Authority) getAuditEvents(w http.ResponseWriter, r *http.Request, _ identity) error {
	_, f, err := a.auditOf(r)
	if err != nil {
		return err
	}
	last, err := number(r, "last", 0, 1<<20)
	if err != nil {
		return err
	}
	q := archive.Query{Last: int(last)}
	for name, to := range map[string]*time.Time{"since": &q.Since, "until": &q.Until} {
		if text := r.URL.Query().Get(name); text != "" {
			if *to, err = time.Parse(time.RFC3339Nano, text); err != nil {
				return refuse(http.StatusBadRequest, "time", name+" is no time", err.Error(), "write it as 2026-11-24T12:00:00Z")
			}
		}
	}
	w.Header().Set("Content-Type", protocol.MediaTypeAuditStream)
	rc := http.NewResponseController(w)
	send := func(p *archive.Place) error {
		_ = rc.SetWriteDeadline(time.Now().Add(writeTime)) // not every test's writer can
		body := chain.Pack(p.Batch)
		head := binary.BigEndian.AppendUint32(nil, uint32(len(body)))             //nolint:gosec // of a batch
		head = binary.BigEndian.AppendUint64(head, uint64(p.Received.UnixNano())) //nolint:gosec // read back so
		if _, err := w.Write(head); err != nil {
			return err
		}
		_, err := w.Write(body)
		return err
	}
	follow := r.URL.Query().Get("follow") == "1"
	at := f.Position()
	if err := f.Read(r.Context(), q, send); err != nil || !follow {
		return ignoreGone(err)
	}
	return ignoreGone(a.followAudit(r.Context(), rc, f, at, send))
}

// followAudit sends what comes until the client goes, or AIAS ends.
func (a *Authority) followAudit(ctx context.Context, rc *http.ResponseController, f *archive.Node, at chain.Position, send func(*archive.Place) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-a.changes.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		_ = rc.SetWriteDeadline(time.Now().Add(writeTime)) // not every test's writer can
		if err := rc.Flush(); err != nil {
			return err
		}
		if err := f.Wait(ctx, at); err != nil {
			return err
		}
		now := f.Position()
		err := f.From(ctx, at, func(p *archive.Place) error {
			if end, err := p.Batch.End(); err == nil {
				now = end
			}
			return send(p)
		})
		if err != nil {
			return err
		}
		at = now
	}
}
