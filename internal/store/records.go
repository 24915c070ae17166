package store

import (
	"context"
	"database/sql"
	"time"
)

// list collects the rows of a query.
func list[T any](ctx context.Context, db *sql.DB, scan func(func(...any) error) (T, error), query string, args ...any) ([]T, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var out []T
	for rows.Next() {
		v, err := scan(rows.Scan)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

func scanChange(scan func(...any) error) (Change, error) {
	var c Change
	var at int64
	err := scan(&c.ID, &c.Node, &at, &c.Cause, &c.From, &c.To, &c.Reason, &c.Levels, &c.Snapshot)
	c.At = fromMicro(at)
	return c, err
}

const changeColumns = `SELECT id, node, at, cause, was, now, reason, levels, snapshot FROM history`

// History returns at most limit changes below an ID (0: from the newest), newest first, of one node or of all ("").
func (s *SQLite) History(ctx context.Context, node string, limit int, before int64) ([]Change, error) {
	if before <= 0 {
		before = 1<<63 - 1
	}
	if node == "" {
		return list(ctx, s.read, scanChange, changeColumns+` WHERE id < ? ORDER BY id DESC LIMIT ?`, before, limit)
	}
	return list(ctx, s.read, scanChange, changeColumns+` WHERE node = ? AND id < ? ORDER BY id DESC LIMIT ?`, node, before, limit)
}

// HistoryAfter returns at most limit changes after an ID, oldest first.
func (s *SQLite) HistoryAfter(ctx context.Context, after int64, limit int) ([]Change, error) {
	return list(ctx, s.read, scanChange, changeColumns+` WHERE id > ? ORDER BY id LIMIT ?`, after, limit)
}

func scanToken(scan func(...any) error) (Token, error) {
	var t Token
	var created, expires int64
	err := scan(&t.ID, &t.Hash, &t.Node, &t.EK, &t.Left, &created, &expires, &t.Note)
	t.Created, t.Expires = fromMicro(created), fromMicro(expires)
	return t, err
}

const tokenColumns = `SELECT id, hash, node, ek, left, created, expires, note FROM tokens`

// PutToken adds a token.
func (s *SQLite) PutToken(ctx context.Context, t Token, act Act) error {
	return s.write(ctx, false, func(x *txn) error {
		_, err := x.exec(`INSERT INTO tokens (id, hash, node, ek, left, created, expires, note) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			t.ID, t.Hash, t.Node, t.EK, t.Left, micro(t.Created), micro(t.Expires), t.Note)
		if err != nil {
			return err
		}
		return x.act(act)
	})
}

// Token returns one token, or ErrNotFound. It does not judge whether the token still works.
func (s *SQLite) Token(ctx context.Context, id string) (*Token, error) {
	t, err := scanToken(s.read.QueryRowContext(ctx, tokenColumns+` WHERE id = ?`, id).Scan)
	return &t, found(err, "token")
}

// Tokens returns all tokens, newest first.
func (s *SQLite) Tokens(ctx context.Context) ([]Token, error) {
	return list(ctx, s.read, scanToken, tokenColumns+` ORDER BY created DESC, id`)
}

// DeleteToken removes a token, or returns ErrNotFound.
func (s *SQLite) DeleteToken(ctx context.Context, id string, act Act) error {
	return s.write(ctx, false, func(x *txn) error {
		r, err := x.exec(`DELETE FROM tokens WHERE id = ?`, id)
		if err := one(r, err, ErrNotFound); err != nil {
			return err
		}
		return x.act(act)
	})
}

// PutEK puts an endorsement key on the allow-list, or changes its note.
func (s *SQLite) PutEK(ctx context.Context, ek EK, act Act) error {
	return s.write(ctx, false, func(x *txn) error {
		_, err := x.exec(`INSERT INTO eks (hash, note, added) VALUES (?, ?, ?) ON CONFLICT (hash) DO UPDATE SET note = excluded.note`, ek.Hash[:], ek.Note, micro(ek.Added))
		if err != nil {
			return err
		}
		return x.act(act)
	})
}

// EKs returns the allow-list.
func (s *SQLite) EKs(ctx context.Context) ([]EK, error) {
	return list(ctx, s.read, func(scan func(...any) error) (EK, error) {
		var ek EK
		var hash []byte
		var added int64
		err := scan(&hash, &ek.Note, &added)
		copy(ek.Hash[:], hash)
		ek.Added = fromMicro(added)
		return ek, err
	}, `SELECT hash, note, added FROM eks ORDER BY hash`)
}

// DeleteEK takes an endorsement key off the allow-list, or returns ErrNotFound.
func (s *SQLite) DeleteEK(ctx context.Context, hash [32]byte, act Act) error {
	return s.write(ctx, false, func(x *txn) error {
		r, err := x.exec(`DELETE FROM eks WHERE hash = ?`, hash[:])
		if err := one(r, err, ErrNotFound); err != nil {
			return err
		}
		return x.act(act)
	})
}

func scanAct(scan func(...any) error) (Act, error) {
	var a Act
	var at int64
	err := scan(&a.ID, &at, &a.Operator, &a.Act, &a.Object, &a.Detail)
	a.At = fromMicro(at)
	return a, err
}

const actColumns = `SELECT id, at, operator, act, object, detail FROM acts`

// Acts returns at most limit acts of operators, newest first.
func (s *SQLite) Acts(ctx context.Context, limit int) ([]Act, error) {
	return list(ctx, s.read, scanAct, actColumns+` ORDER BY id DESC LIMIT ?`, limit)
}

// ActsAfter returns at most limit acts after an ID, oldest first.
func (s *SQLite) ActsAfter(ctx context.Context, after int64, limit int) ([]Act, error) {
	return list(ctx, s.read, scanAct, actColumns+` WHERE id > ? ORDER BY id LIMIT ?`, after, limit)
}

// Clean removes logs that no Evidence refers to, lists that nothing continues, and sessions and tokens that ended an hour ago.
func (s *SQLite) Clean(ctx context.Context, now time.Time) error {
	return s.write(ctx, false, func(x *txn) error {
		old := micro(now.Add(-time.Hour))
		for _, q := range []struct {
			query string
			args  []any
		}{
			{`DELETE FROM blobs WHERE digest NOT IN (SELECT digest FROM log_refs)`, nil},
			{`DELETE FROM ima WHERE NOT EXISTS (SELECT 1 FROM evidence e WHERE e.node = ima.node AND e.list = ima.list)
				AND NOT EXISTS (SELECT 1 FROM states s WHERE s.node = ima.node AND s.list = ima.list)`, nil},
			{`DELETE FROM sessions WHERE expires < ?`, []any{old}},
			{`DELETE FROM tokens WHERE expires < ? OR left <= 0`, []any{old}},
		} {
			if _, err := x.exec(q.query, q.args...); err != nil {
				return err
			}
		}
		return nil
	})
}
