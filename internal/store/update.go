package store

import (
	"context"
	"fmt"
)

// Save writes one step of one node. The first statement carries the check of the challenge, so that a refusal has written nothing.
func (s *SQLite) Save(ctx context.Context, u *Update) (int64, error) {
	blobs := make([]Blob, len(u.Blobs)) // compressed here, by the caller's goroutine
	for i, b := range u.Blobs {
		blobs[i] = Blob{Digest: b.Digest, Data: s.pack(b.Data)}
	}
	var chunk []byte
	if len(u.IMA) > 0 {
		chunk = s.pack(u.IMA)
	}
	evidence := make([]Evidence, len(u.Evidence))
	for i, e := range u.Evidence {
		if len(e.IMATail) > 0 {
			e.IMATail = s.pack(e.IMATail)
		}
		evidence[i] = e
	}
	var id int64
	err := s.write(ctx, true, func(t *txn) error {
		if err := t.state(u); err != nil {
			return err
		}
		if u.Verdict != nil {
			if _, err := t.exec(`INSERT INTO verdicts (node, verdict) VALUES (?, ?) ON CONFLICT (node) DO UPDATE SET verdict = excluded.verdict`, u.Node, u.Verdict); err != nil {
				return err
			}
		}
		for _, b := range blobs {
			if _, err := t.exec(`INSERT INTO blobs (digest, data) VALUES (?, ?) ON CONFLICT (digest) DO UPDATE SET data = excluded.data WHERE data <> excluded.data`, b.Digest, b.Data); err != nil {
				return err
			}
		}
		for i := range evidence {
			if err := t.evidence(u.Node, &evidence[i]); err != nil {
				return err
			}
		}
		if err := t.ima(u, chunk); err != nil {
			return err
		}
		if u.Tag != nil {
			if err := t.tag(u.Tag); err != nil {
				return err
			}
		}
		if !u.Revoke.IsZero() {
			if err := t.revoke(u.Node, u.Revoke); err != nil {
				return err
			}
		}
		if u.Act != nil {
			if err := t.act(*u.Act); err != nil {
				return err
			}
		}
		if u.Change == nil {
			return nil
		}
		c := *u.Change
		err := t.change(&c)
		id = c.ID
		return err
	})
	return id, err
}

func (t *txn) state(u *Update) error {
	st := &u.State
	limit, otherwise := int64(1<<63-1), ErrNotFound
	if u.Challenge != 0 {
		limit, otherwise = u.Challenge, ErrUsed
	}
	r, err := t.exec(`UPDATE states SET watermark = max(watermark, ?), trust = ?, reason = ?, levels = ?, since = ?, attested = ?, expires = ?,
		checkpoint = ?, snapshot = ?, result = ?, list = ?, bad = ? WHERE node = ? AND watermark < ?`,
		u.Challenge, st.Trust, st.Reason, st.Levels, micro(st.Since), micro(st.Attested), micro(st.Expires),
		st.Checkpoint, st.Snapshot, st.Result, st.List, st.Bad, u.Node, limit)
	return one(r, err, otherwise)
}

func (t *txn) evidence(node int64, e *Evidence) error {
	if e.Kind < 0 || e.Kind >= numKinds {
		return fmt.Errorf("evidence of kind %d", e.Kind)
	}
	_, err := t.exec(`INSERT INTO evidence (id, node, at, document, event_log, facts, list, ima_len, ima_tail) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET at = excluded.at, document = excluded.document, event_log = excluded.event_log, facts = excluded.facts,
		list = excluded.list, ima_len = excluded.ima_len, ima_tail = excluded.ima_tail`,
		node*4+int64(e.Kind), node, micro(e.At), e.Document, e.EventLog, e.Facts, e.List, int64(e.IMALen), e.IMATail)
	return err
}

// ima appends to a list. A list that starts lets go of those that no Evidence refers to any more.
func (t *txn) ima(u *Update, chunk []byte) error {
	if u.IMAOffset == 0 && len(u.IMA) > 0 {
		_, err := t.exec(`DELETE FROM ima WHERE node = ? AND list NOT IN (SELECT list FROM evidence WHERE node = ?)`, u.Node, u.Node)
		if err != nil {
			return err
		}
	}
	if chunk == nil {
		return nil
	}
	_, err := t.exec(`INSERT INTO ima (node, list, start, size, data) VALUES (?, ?, ?, ?, ?)`, u.Node, u.State.List, int64(u.IMAOffset), len(u.IMA), chunk)
	return err
}

// Verdict returns the JSON of the last verdict of a node, or ErrNotFound.
func (s *SQLite) Verdict(ctx context.Context, node int64) ([]byte, error) {
	var v []byte
	err := s.read.QueryRowContext(ctx, `SELECT verdict FROM verdicts WHERE node = ?`, node).Scan(&v)
	return v, found(err, "verdict")
}

// Result returns the last signed result of a node, or ErrNotFound.
func (s *SQLite) Result(ctx context.Context, node int64) (string, error) {
	var v string
	err := s.read.QueryRowContext(ctx, `SELECT result FROM states WHERE node = ? AND result <> ''`, node).Scan(&v)
	return v, found(err, "result")
}

// Evidence returns kept Evidence, or ErrNotFound.
func (s *SQLite) Evidence(ctx context.Context, node int64, k Kind) (*Evidence, error) {
	e := &Evidence{Kind: k}
	var at, length int64
	var tail []byte
	err := s.read.QueryRowContext(ctx, `SELECT at, document, event_log, facts, list, ima_len, ima_tail FROM evidence WHERE id = ?`, node*4+int64(k)).
		Scan(&at, &e.Document, &e.EventLog, &e.Facts, &e.List, &length, &tail)
	if err != nil {
		return nil, found(err, "evidence")
	}
	e.At, e.IMALen = fromMicro(at), uint64(length)
	if len(tail) > 0 {
		if e.IMATail, err = s.unpack(tail); err != nil {
			return nil, fmt.Errorf("kept evidence is damaged: %w", err)
		}
	}
	return e, nil
}

// IMA returns the first length bytes of a list of a node.
func (s *SQLite) IMA(ctx context.Context, node, list int64, length uint64) ([]byte, error) {
	if length == 0 {
		return nil, nil
	}
	rows, err := s.read.QueryContext(ctx, `SELECT start, data FROM ima WHERE node = ? AND list = ? AND start < ? ORDER BY start`, node, list, int64(length))
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var out []byte
	for rows.Next() {
		var start int64
		var data []byte
		if err := rows.Scan(&start, &data); err != nil {
			return nil, err
		}
		plain, err := s.unpack(data)
		if err != nil {
			return nil, fmt.Errorf("kept ima list is damaged: %w", err)
		}
		if int64(len(out)) != start {
			return nil, fmt.Errorf("kept ima list has a gap at byte %d: %w", len(out), ErrNotFound)
		}
		out = append(out, plain...)
	}
	if uint64(len(out)) < length {
		return nil, fmt.Errorf("kept ima list has %d of %d bytes: %w", len(out), length, ErrNotFound)
	}
	return out[:length], rows.Err()
}

// Blob returns a log by its digest, or ErrNotFound.
func (s *SQLite) Blob(ctx context.Context, digest []byte) ([]byte, error) {
	var data []byte
	if err := s.read.QueryRowContext(ctx, `SELECT data FROM blobs WHERE digest = ?`, digest).Scan(&data); err != nil {
		return nil, found(err, "log")
	}
	b, err := s.unpack(data)
	if err != nil {
		return nil, fmt.Errorf("kept log is damaged (%w): %w", err, ErrNotFound)
	}
	return b, nil
}
