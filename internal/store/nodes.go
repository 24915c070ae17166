package store

import (
	"bytes"
	"context"
	"crypto/subtle"
	"database/sql"
	"errors"
	"time"
)

const nodeColumns = `n.id, n.name, n.ek, n.ek_cert, n.software, n.ak_public, n.tls_key, n.agent, n.enrolled, n.rebind_ek, n.rebind_until,
	s.watermark, s.trust, s.reason, s.levels, s.since, s.attested, s.expires, s.checkpoint, s.snapshot, s.list, s.bad`

// scanNode reads nodeColumns. The signed result is left out: nobody keeps it in memory.
func scanNode(scan func(...any) error) (Node, error) {
	var n Node
	var ek, key []byte
	var enrolled, rebind, since, attested, expires int64
	err := scan(&n.ID, &n.Name, &ek, &n.EKCert, &n.Software, &n.AKPublic, &key, &n.Agent, &enrolled, &n.RebindEK, &rebind,
		&n.State.Watermark, &n.State.Trust, &n.State.Reason, &n.State.Levels, &since, &attested, &expires,
		&n.State.Checkpoint, &n.State.Snapshot, &n.State.List, &n.State.Bad)
	copy(n.EK[:], ek)
	copy(n.TLSKey[:], key)
	n.Enrolled, n.RebindTill = fromMicro(enrolled), fromMicro(rebind)
	n.State.Since, n.State.Attested, n.State.Expires = fromMicro(since), fromMicro(attested), fromMicro(expires)
	return n, err
}

// Nodes returns all nodes, sorted by name.
func (s *SQLite) Nodes(ctx context.Context) ([]Node, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT `+nodeColumns+` FROM nodes n JOIN states s ON s.node = n.id ORDER BY n.name`)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var out []Node
	for rows.Next() {
		n, err := scanNode(rows.Scan)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, rows.Err()
}

// find returns a node by name or by EK, nil when there is none.
func (t *txn) find(column string, value any) (*Node, error) {
	row, err := t.row(`SELECT `+nodeColumns+` FROM nodes n JOIN states s ON s.node = n.id WHERE n.`+column+` = ?`, value)
	if err != nil {
		return nil, err
	}
	n, err := scanNode(row.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return &n, err
}

// Enrol uses up session and token and writes the node, or refuses with ErrUsed, ErrToken, ErrNameTaken or ErrTPMTaken.
func (s *SQLite) Enrol(ctx context.Context, e Enrolment) (Node, *Change, error) {
	out, change := e.Node, (*Change)(nil)
	err := s.write(ctx, false, func(t *txn) error {
		out, change = e.Node, nil
		r, err := t.exec(`INSERT INTO sessions (id, expires) VALUES (?, ?) ON CONFLICT (id) DO NOTHING`, e.Session, micro(e.Until))
		if err := one(r, err, ErrUsed); err != nil {
			return err
		}
		if e.Token != "" {
			r, err := t.exec(`UPDATE tokens SET left = left - 1 WHERE id = ? AND left > 0 AND expires > ? AND node IN ('', ?) AND (ek IS NULL OR ek = ?)`,
				e.Token, micro(e.Now), e.Node.Name, e.Node.EK[:])
			if err := one(r, err, ErrToken); err != nil {
				return err
			}
		}
		byName, err := t.find("name", e.Node.Name)
		if err != nil {
			return err
		}
		byEK, err := t.find("ek", e.Node.EK[:])
		if err != nil {
			return err
		}
		if byEK != nil && byEK.Name != e.Node.Name {
			return ErrTPMTaken
		}
		if byName != nil && byName.EK == e.Node.EK {
			return t.reenrol(&out, *byName)
		}
		if byName != nil && !mayRebind(byName, e.Node.EK, e.Now) {
			return ErrNameTaken
		}
		change, err = t.replace(&out, byName, e.Now)
		return err
	})
	return out, change, err
}

func mayRebind(n *Node, ek [32]byte, now time.Time) bool {
	return now.Before(n.RebindTill) && (n.RebindEK == nil || subtle.ConstantTimeCompare(n.RebindEK, ek[:]) == 1)
}

// reenrol gives the same TPM new keys. With the same attestation key the node goes on as it was; a new one starts its state over, but keeps
// the verdict until the next Evidence.
func (t *txn) reenrol(out *Node, was Node) error {
	out.ID, out.State = was.ID, was.State
	if !bytes.Equal(out.AKPublic, was.AKPublic) {
		out.State.Checkpoint = nil
		if _, err := t.exec(`UPDATE tags SET proven = 0, since = ?, reason = 'enrolled again with another attestation key' WHERE node = ? AND proven`, micro(out.Enrolled), was.Name); err != nil {
			return err
		}
	}
	_, err := t.exec(`UPDATE nodes SET ek_cert = ?, software = ?, ak_public = ?, tls_key = ?, agent = ?, enrolled = ?, rebind_ek = NULL, rebind_until = 0 WHERE id = ?`,
		out.EKCert, out.Software, out.AKPublic, out.TLSKey[:], out.Agent, micro(out.Enrolled), out.ID)
	if err == nil {
		_, err = t.exec(`UPDATE states SET checkpoint = ? WHERE node = ?`, out.State.Checkpoint, out.ID)
	}
	return err
}

// replace writes a new node; one that had the name before (was) is removed with all that was known of it.
func (t *txn) replace(out, was *Node, now time.Time) (*Change, error) {
	from := ""
	if was != nil {
		from = was.State.Trust
		if err := t.forgetTags(was.Name); err != nil { // they were for the old TPM
			return nil, err
		}
		if _, err := t.exec(`DELETE FROM nodes WHERE id = ?`, was.ID); err != nil {
			return nil, err
		}
	}
	r, err := t.exec(`INSERT INTO nodes (name, ek, ek_cert, software, ak_public, tls_key, agent, enrolled) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		out.Name, out.EK[:], out.EKCert, out.Software, out.AKPublic, out.TLSKey[:], out.Agent, micro(out.Enrolled))
	if err != nil {
		return nil, err
	}
	if out.ID, err = r.LastInsertId(); err != nil {
		return nil, err
	}
	st := &out.State
	_, err = t.exec(`INSERT INTO states (node, watermark, trust, reason, levels, since, attested, expires, snapshot, result, list) VALUES (?, ?, ?, ?, ?, ?, 0, 0, '', '', 0)`,
		out.ID, st.Watermark, st.Trust, st.Reason, st.Levels, micro(st.Since))
	if err != nil {
		return nil, err
	}
	c := &Change{Node: out.Name, At: now, Cause: "enrolment", From: from, To: st.Trust, Reason: st.Reason}
	return c, t.change(c)
}

// change appends to the history and fills in the ID.
func (t *txn) change(c *Change) error {
	r, err := t.exec(`INSERT INTO history (node, at, cause, was, now, reason, levels, snapshot) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		c.Node, micro(c.At), c.Cause, c.From, c.To, c.Reason, c.Levels, c.Snapshot)
	if err != nil {
		return err
	}
	c.ID, err = r.LastInsertId()
	return err
}

// Delete removes a node and all that was kept of it; its history stays.
func (s *SQLite) Delete(ctx context.Context, node int64, c *Change, act Act) error {
	return s.write(ctx, false, func(t *txn) error {
		if err := t.forgetTags(c.Node); err != nil {
			return err
		}
		r, err := t.exec(`DELETE FROM nodes WHERE id = ?`, node)
		if err := one(r, err, ErrNotFound); err != nil {
			return err
		}
		if err := t.change(c); err != nil {
			return err
		}
		return t.act(act)
	})
}

// Rebind lets another TPM take the name of a node until a time; nil ek means any TPM.
func (s *SQLite) Rebind(ctx context.Context, node int64, ek []byte, until time.Time, act Act) error {
	return s.write(ctx, false, func(t *txn) error {
		r, err := t.exec(`UPDATE nodes SET rebind_ek = ?, rebind_until = ? WHERE id = ?`, ek, micro(until), node)
		if err := one(r, err, ErrNotFound); err != nil {
			return err
		}
		return t.act(act)
	})
}

// one checks that a statement changed a row, and returns otherwise when it did not.
func one(r sql.Result, err, otherwise error) error {
	if err != nil {
		return err
	}
	n, err := r.RowsAffected()
	if err != nil {
		return err
	}
	if n == 0 {
		return otherwise
	}
	return nil
}
