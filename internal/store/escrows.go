package store

import "context"

// Escrow is a passphrase of a disk that AIAS keeps, sealed, with what is known of it as JSON.
type Escrow struct {
	Node   string
	Volume string
	Sealed []byte
	State  []byte
}

const escrowColumns = `SELECT node, volume, sealed, state FROM disk_escrows`

func scanEscrow(scan func(...any) error) (Escrow, error) {
	var e Escrow
	err := scan(&e.Node, &e.Volume, &e.Sealed, &e.State)
	return e, err
}

// Escrows returns all, by node and volume.
func (s *SQLite) Escrows(ctx context.Context) ([]Escrow, error) {
	return list(ctx, s.read, scanEscrow, escrowColumns+` ORDER BY node, volume`)
}

// Escrow returns one, or ErrNotFound.
func (s *SQLite) Escrow(ctx context.Context, node, volume string) (*Escrow, error) {
	e, err := scanEscrow(s.read.QueryRowContext(ctx, escrowColumns+` WHERE node = ? AND volume = ?`, node, volume).Scan)
	return &e, found(err, "passphrase")
}

// PutEscrow writes one, in the place of what was there.
func (s *SQLite) PutEscrow(ctx context.Context, e Escrow, act Act) error {
	return s.write(ctx, false, func(x *txn) error {
		if _, err := x.exec(`INSERT INTO disk_escrows (node, volume, sealed, state) VALUES (?, ?, ?, ?)
			ON CONFLICT (node, volume) DO UPDATE SET sealed = excluded.sealed, state = excluded.state`, e.Node, e.Volume, e.Sealed, e.State); err != nil {
			return err
		}
		return x.act(act)
	})
}

// SetEscrow writes the state of one, or returns ErrNotFound.
func (s *SQLite) SetEscrow(ctx context.Context, e Escrow, act Act) error {
	return s.write(ctx, false, func(x *txn) error {
		r, err := x.exec(`UPDATE disk_escrows SET state = ? WHERE node = ? AND volume = ?`, e.State, e.Node, e.Volume)
		if err := one(r, err, ErrNotFound); err != nil {
			return err
		}
		return x.act(act)
	})
}

// DeleteEscrow removes one, or returns ErrNotFound.
func (s *SQLite) DeleteEscrow(ctx context.Context, node, volume string, act Act) error {
	return s.write(ctx, false, func(x *txn) error {
		r, err := x.exec(`DELETE FROM disk_escrows WHERE node = ? AND volume = ?`, node, volume)
		if err := one(r, err, ErrNotFound); err != nil {
			return err
		}
		return x.act(act)
	})
}
