package authority

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strconv"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
)

const (
	defaultLimit = 100
	maxLimit     = 1000
	eventBatch   = 200 // changes read at a time for a stream
	heartbeat    = 15 * time.Second
	streamTime   = 2 * heartbeat // that a client may take to read what was sent
)

// number reads a query parameter.
func number(r *http.Request, name string, def, most int64) (int64, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return def, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, refuse(http.StatusBadRequest, "parameter", "parameter "+name+" is no number", clip(s, 40), "")
	}
	return min(n, most), nil
}

func (a *Authority) getHistory(w http.ResponseWriter, r *http.Request, _ identity) error {
	limit, err := number(r, "limit", defaultLimit, maxLimit)
	if err != nil {
		return err
	}
	before, err := number(r, "before", 0, 1<<62)
	if err != nil {
		return err
	}
	// The history of a removed node is still there: the name need not be enrolled.
	rows, err := a.store.History(r.Context(), r.PathValue("node"), int(limit), before)
	if err != nil {
		return err
	}
	out := protocol.History{Changes: make([]protocol.Change, len(rows))}
	for i, c := range rows {
		if out.Changes[i], err = change(c); err != nil {
			return err
		}
	}
	return answer(w, out)
}

// getEvents streams changes of verdicts. What is sent comes from the history, in its order: a signal only wakes the stream up, so nothing is lost
// or reordered, whatever the client's Last-Event-ID.
func (a *Authority) getEvents(w http.ResponseWriter, r *http.Request, _ identity) error {
	wake := a.changes.wait()
	after, err := a.eventStart(r)
	if err != nil {
		return err
	}
	out := openSSE(w)
	out.comment("ready")
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		out.alive()
		if after, err = a.sendEvents(r.Context(), out.w, after); err != nil {
			return nil // the headers are out: the client sees the end and comes again
		}
		if out.flush() != nil {
			return nil
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-a.changes.done:
			return nil
		case <-wake:
			wake = a.changes.wait()
		case <-tick.C:
			out.comment("alive")
		}
	}
}

// eventStart returns the ID after which a stream begins: the client's, else the newest.
func (a *Authority) eventStart(r *http.Request) (int64, error) {
	if s := r.Header.Get("Last-Event-ID"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return 0, refuse(http.StatusBadRequest, "parameter", "Last-Event-ID is no number", clip(s, 40), "")
		}
		return n, nil
	}
	rows, err := a.store.History(r.Context(), "", 1, 0)
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	return rows[0].ID, nil
}

func (a *Authority) sendEvents(ctx context.Context, w io.Writer, after int64) (int64, error) {
	for {
		rows, err := a.store.HistoryAfter(ctx, after, eventBatch)
		if err != nil {
			return after, err
		}
		for _, row := range rows {
			c, err := change(row)
			if err != nil {
				return after, err
			}
			b, err := json.Marshal(c)
			if err != nil {
				return after, err
			}
			if _, err := fmt.Fprintf(w, "id: %d\nevent: change\ndata: %s\n\n", c.ID, b); err != nil {
				return after, err
			}
			after = c.ID
		}
		if len(rows) < eventBatch {
			return after, nil
		}
	}
}

func (a *Authority) getTokens(w http.ResponseWriter, r *http.Request, _ identity) error {
	rows, err := a.store.Tokens(r.Context())
	if err != nil {
		return err
	}
	out := protocol.TokenList{Tokens: make([]protocol.Token, len(rows))}
	for i, t := range rows {
		out.Tokens[i] = tokenView(t)
	}
	return answer(w, out)
}

func (a *Authority) postToken(w http.ResponseWriter, r *http.Request, id identity) error {
	var req protocol.TokenRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	out, err := a.CreateToken(r.Context(), id.name, req)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return answer(w, out)
}

// CreateToken makes a join token in the name of an operator.
func (a *Authority) CreateToken(ctx context.Context, operator string, req protocol.TokenRequest) (*protocol.NewToken, error) {
	return PutToken(ctx, a.store, a.now(), operator, req)
}

func (a *Authority) deleteToken(w http.ResponseWriter, r *http.Request, id identity) error {
	t := r.PathValue("id")
	return removed(w, a.store.DeleteToken(r.Context(), t, a.act(id, "token.revoke", clip(t, 40), "")), "token")
}

// removed answers a DELETE.
func removed(w http.ResponseWriter, err error, what string) error {
	if notFound(err) {
		return refuse(http.StatusNotFound, "no-"+what, "there is no such "+what, "", "")
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *Authority) putPolicy(w http.ResponseWriter, r *http.Request, id identity) error {
	if a.cfg.PolicyFile != "" {
		return refuse(http.StatusConflict, "policy-file", "the policy comes from a file", "",
			"change "+a.cfg.PolicyFile+" and reload, or take policyFile out of the configuration")
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPolicy))
	if err != nil {
		return err
	}
	a.reloading.Lock()
	defer a.reloading.Unlock()
	s, err := a.compile(b)
	if err != nil {
		return refuse(http.StatusUnprocessableEntity, "policy", "the policy cannot be used; the old one stays in force", err.Error(),
			"check it first: touchstone policy check FILE")
	}
	if err := a.store.PutSettings(r.Context(), map[string][]byte{settingPolicy: b}, ptr(a.act(id, "policy.put", s.Appraiser.Snapshot(), ""))); err != nil {
		return err
	}
	a.adopt(s)
	return answer(w, a.snapshotInfo())
}

func (a *Authority) getEKs(w http.ResponseWriter, r *http.Request, _ identity) error {
	rows, err := a.store.EKs(r.Context())
	if err != nil {
		return err
	}
	out := protocol.EKList{EKs: make([]protocol.EK, 0, len(rows))}
	for hash, note := range a.trust.Load().eks {
		out.EKs = append(out.EKs, protocol.EK{SHA256: hex.EncodeToString(hash[:]), Note: note, File: true})
	}
	sort.Slice(out.EKs, func(i, j int) bool { return out.EKs[i].SHA256 < out.EKs[j].SHA256 })
	for _, ek := range rows {
		out.EKs = append(out.EKs, protocol.EK{SHA256: hex.EncodeToString(ek.Hash[:]), Note: ek.Note, Added: ek.Added})
	}
	return answer(w, out)
}

func (a *Authority) postEK(w http.ResponseWriter, r *http.Request, id identity) error {
	var req protocol.EK
	if err := decode(w, r, &req); err != nil {
		return err
	}
	hash, err := pathHash(req.SHA256)
	if err != nil {
		return err
	}
	ek := store.EK{Hash: hash, Note: clip(req.Note, maxNote), Added: a.now()}
	if err := a.store.PutEK(r.Context(), ek, a.act(id, "ek.allow", req.SHA256, ek.Note)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *Authority) deleteEK(w http.ResponseWriter, r *http.Request, id identity) error {
	hash, err := pathHash(r.PathValue("sha256"))
	if err != nil {
		return err
	}
	return removed(w, a.store.DeleteEK(r.Context(), hash, a.act(id, "ek.disallow", r.PathValue("sha256"), "")), "ek")
}

func (a *Authority) getActs(w http.ResponseWriter, r *http.Request, _ identity) error {
	limit, err := number(r, "limit", defaultLimit, maxLimit)
	if err != nil {
		return err
	}
	rows, err := a.store.Acts(r.Context(), int(limit))
	if err != nil {
		return err
	}
	out := protocol.ActList{Acts: make([]protocol.Act, len(rows))}
	for i, x := range rows {
		out.Acts[i] = protocol.Act(x)
	}
	return answer(w, out)
}
