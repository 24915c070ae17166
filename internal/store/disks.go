package store

import (
	"context"
	"time"
)

// DiskKey is a key that disks are bound to, or that signs their advertisements.
type DiskKey struct {
	Thumbprint string // RFC 7638 with SHA-256
	Node       string // whose; "" for the keys that all share
	Use        string // ES512 or ECMR
	Sealed     []byte // private key, sealed
	Created    time.Time
	Rotated    time.Time // when it stopped being advertised; zero while it is
	Imported   bool
}

// DiskUse says that a key recovered for a node, or, of a key that all share, for an address.
type DiskUse struct {
	Thumbprint string
	Client     string
	Last       time.Time
	Count      int64
}

// DiskStep is one change to what is known of disks, written as a whole or not at all.
type DiskStep struct {
	Node   string
	Record []byte    // JSON of the node's; nil: it stays
	Add    []DiskKey // must not be there yet
	Rotate []string  // thumbprints that are advertised no more
	Drop   bool      // forget the node and destroy its keys; nothing else then
	Use    *DiskUse
	At     time.Time
	Act    *Act // of an operator
}

// maxDiskUses is how many clients are remembered of one key: who binds from ever new addresses pushes the oldest out.
const maxDiskUses = 4096

const diskKeyColumns = `SELECT thumbprint, node, use, sealed, created, rotated, imported FROM disk_keys`

func scanDiskKey(scan func(...any) error) (DiskKey, error) {
	var k DiskKey
	var created, rotated int64
	err := scan(&k.Thumbprint, &k.Node, &k.Use, &k.Sealed, &created, &rotated, &k.Imported)
	k.Created, k.Rotated = fromMicro(created), fromMicro(rotated)
	return k, err
}

// DiskKeys returns all keys of disks, oldest first.
func (s *SQLite) DiskKeys(ctx context.Context) ([]DiskKey, error) {
	return list(ctx, s.read, scanDiskKey, diskKeyColumns+` ORDER BY created, thumbprint`)
}

// DiskNodes returns the records of all nodes that have keys for disks, by name.
func (s *SQLite) DiskNodes(ctx context.Context) (map[string][]byte, error) {
	type row struct {
		node   string
		record []byte
	}
	rows, err := list(ctx, s.read, func(scan func(...any) error) (row, error) {
		var r row
		err := scan(&r.node, &r.record)
		return r, err
	}, `SELECT node, record FROM disk_nodes`)
	out := make(map[string][]byte, len(rows))
	for _, r := range rows {
		out[r.node] = r.record
	}
	return out, err
}

// DiskUses returns who recovered with which key, the last first.
func (s *SQLite) DiskUses(ctx context.Context) ([]DiskUse, error) {
	return list(ctx, s.read, func(scan func(...any) error) (DiskUse, error) {
		var u DiskUse
		var last int64
		err := scan(&u.Thumbprint, &u.Client, &last, &u.Count)
		u.Last = fromMicro(last)
		return u, err
	}, `SELECT thumbprint, client, last, count FROM disk_uses ORDER BY last DESC, client`)
}

// SaveDisk writes a step.
func (s *SQLite) SaveDisk(ctx context.Context, d *DiskStep) error {
	// What a recovery writes cannot be refused: without a savepoint a storm of them costs half.
	clean := len(d.Add) == 0 && len(d.Rotate) == 0 && !d.Drop && d.Act == nil
	return s.write(ctx, clean, func(x *txn) error { return x.disk(d) })
}

func (t *txn) disk(d *DiskStep) error {
	if d.Act != nil {
		if err := t.act(*d.Act); err != nil {
			return err
		}
	}
	if d.Drop {
		if _, err := t.exec(`DELETE FROM disk_keys WHERE node = ?`, d.Node); err != nil {
			return err
		}
		r, err := t.exec(`DELETE FROM disk_nodes WHERE node = ?`, d.Node)
		return one(r, err, ErrNotFound)
	}
	if d.Record != nil {
		if _, err := t.exec(`INSERT INTO disk_nodes (node, record) VALUES (?, ?) ON CONFLICT (node) DO UPDATE SET record = excluded.record`, d.Node, d.Record); err != nil {
			return err
		}
	}
	for i := range d.Add {
		k := &d.Add[i]
		if _, err := t.exec(`INSERT INTO disk_keys (thumbprint, node, use, sealed, created, rotated, imported) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			k.Thumbprint, k.Node, k.Use, k.Sealed, micro(k.Created), micro(k.Rotated), k.Imported); err != nil {
			return err
		}
	}
	for _, name := range d.Rotate {
		r, err := t.exec(`UPDATE disk_keys SET rotated = ? WHERE thumbprint = ? AND rotated = 0`, micro(d.At), name)
		if err := one(r, err, ErrNotFound); err != nil {
			return err
		}
	}
	if d.Use != nil {
		return t.diskUse(d.Use, d.Node != "")
	}
	return nil
}

func (t *txn) diskUse(u *DiskUse, own bool) error {
	_, err := t.exec(`INSERT INTO disk_uses (thumbprint, client, last, count) VALUES (?, ?, ?, 1)
		ON CONFLICT (thumbprint, client) DO UPDATE SET last = excluded.last, count = count + 1`, u.Thumbprint, u.Client, micro(u.Last))
	if err != nil || own { // the key of a node has one client
		return err
	}
	_, err = t.exec(`DELETE FROM disk_uses WHERE thumbprint = ?1 AND client IN
		(SELECT client FROM disk_uses WHERE thumbprint = ?1 ORDER BY last DESC LIMIT -1 OFFSET ?2)`, u.Thumbprint, maxDiskUses)
	return err
}
