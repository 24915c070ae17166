package store

import (
	"context"
	"fmt"
)

// Sealed is a secret in the database, sealed by package keystore.
type Sealed struct {
	Place string // which of the places it is in
	Key   string // and where there
	AAD   string // what it is bound to
	Data  []byte
}

// place is a column that holds sealed secrets. Their aad is the prefix and the key, so that a rotation and a backup can open what others have
// sealed.
type place struct{ name, table, key, column, prefix string }

// places are all of them, sorted: whoever adds a table with secrets adds it here.
var places = []place{
	{"disk escrows", "disk_escrows", "node || '/' || volume", "sealed", "nbde/escrow/"},
	{"disk keys", "disk_keys", "node || '/' || thumbprint", "sealed", "nbde/key/"},
	{"image keys", "image_keys", "id", "wrapped", "image-key/"},
	{"settings", "settings", "key", "value", "setting/"},
}

const sealedMagic = "TSS" // begins what package keystore seals, and what it may seal in later versions

// SealedAfter returns at most limit sealed secrets after a place and key ("": from the first), in a fixed order.
func (s *SQLite) SealedAfter(ctx context.Context, at, key string, limit int) ([]Sealed, error) {
	var out []Sealed
	for _, p := range places {
		if p.name < at {
			continue
		}
		from := ""
		if p.name == at {
			from = key
		}
		rows, err := list(ctx, s.read, func(scan func(...any) error) (Sealed, error) {
			v := Sealed{Place: p.name}
			err := scan(&v.Key, &v.Data)
			v.AAD = p.prefix + v.Key
			return v, err
		}, fmt.Sprintf(`SELECT %[1]s, %[2]s FROM %[3]s WHERE %[1]s > ? AND substr(%[2]s, 1, 3) = CAST(? AS BLOB) ORDER BY %[1]s LIMIT ?`, p.key, p.column, p.table),
			from, sealedMagic, limit-len(out))
		if err != nil {
			return nil, fmt.Errorf("read the sealed secrets of %s: %w", p.name, err)
		}
		if out = append(out, rows...); len(out) >= limit {
			break
		}
	}
	return out, nil
}

// Reseal puts data in the place of sealed secrets, all or none. One that was changed or removed since it was read is left alone; it tells how many
// were not.
func (s *SQLite) Reseal(ctx context.Context, old []Sealed, data [][]byte) (changed int, err error) {
	if len(old) != len(data) {
		return 0, fmt.Errorf("reseal %d secrets with %d", len(old), len(data))
	}
	err = s.write(ctx, false, func(t *txn) error {
		changed = 0 // it may run twice
		for i, o := range old {
			p, err := placeOf(o.Place)
			if err != nil {
				return err
			}
			r, err := t.exec(fmt.Sprintf(`UPDATE %[3]s SET %[2]s = ? WHERE %[1]s = ? AND %[2]s = ?`, p.key, p.column, p.table), data[i], o.Key, o.Data)
			if err != nil {
				return err
			}
			n, err := r.RowsAffected()
			if err != nil {
				return err
			}
			changed += int(n)
		}
		return nil
	})
	return changed, err
}

func placeOf(name string) (place, error) {
	for _, p := range places {
		if p.name == name {
			return p, nil
		}
	}
	return place{}, fmt.Errorf("there is no place %q of sealed secrets", name)
}
