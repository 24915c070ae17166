package store

import (
	"context"
	"time"
)

// ImageKey is the key of an encrypted image with what a node must meet to get it.
type ImageKey struct {
	ID         string
	Wrapped    []byte // sealed by the key-encryption key
	Class      string // by name; "" when the conditions were given as such
	Conditions []byte // JSON of release.Conditions: what the class said when the key was made
	Image      string // what it was made for, in words
	Created    time.Time
	By         string    // operator
	Revoked    time.Time // zero while it may be released
}

// Class is what a trust class demands of a node, as AIAS knows it.
type Class struct {
	Name       string
	Conditions []byte // JSON of release.Conditions
	Set        time.Time
	By         string
}

const imageKeyColumns = `id, wrapped, class, conditions, image, created, operator, revoked`

func scanImageKey(scan func(...any) error) (ImageKey, error) {
	var k ImageKey
	var created, revoked int64
	err := scan(&k.ID, &k.Wrapped, &k.Class, &k.Conditions, &k.Image, &created, &k.By, &revoked)
	k.Created, k.Revoked = fromMicro(created), fromMicro(revoked)
	return k, err
}

// ImageKeys returns all image keys, newest first.
func (s *SQLite) ImageKeys(ctx context.Context) ([]ImageKey, error) {
	return list(ctx, s.read, scanImageKey, `SELECT `+imageKeyColumns+` FROM image_keys ORDER BY created DESC, id`)
}

// ImageKey returns one image key, or ErrNotFound.
func (s *SQLite) ImageKey(ctx context.Context, id string) (*ImageKey, error) {
	k, err := scanImageKey(s.read.QueryRowContext(ctx, `SELECT `+imageKeyColumns+` FROM image_keys WHERE id = ?`, id).Scan)
	return &k, found(err, "image key")
}

// AddImageKey writes a new image key. One that is there already is refused with ErrUsed: nothing replaces a key.
func (s *SQLite) AddImageKey(ctx context.Context, k ImageKey, act Act) error {
	return s.write(ctx, true, func(t *txn) error {
		r, err := t.exec(`INSERT INTO image_keys (`+imageKeyColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
			k.ID, k.Wrapped, k.Class, k.Conditions, k.Image, micro(k.Created), k.By, micro(k.Revoked))
		if err := one(r, err, ErrUsed); err != nil {
			return err
		}
		return t.act(act)
	})
}

// SetImageKey changes what a node must meet to get a key, and whether it is revoked. The key itself never changes.
func (s *SQLite) SetImageKey(ctx context.Context, k ImageKey, act Act) error {
	return s.write(ctx, true, func(t *txn) error {
		r, err := t.exec(`UPDATE image_keys SET class = ?, conditions = ?, revoked = ? WHERE id = ?`, k.Class, k.Conditions, micro(k.Revoked), k.ID)
		if err := one(r, err, ErrNotFound); err != nil {
			return err
		}
		return t.act(act)
	})
}

func scanClass(scan func(...any) error) (Class, error) {
	var c Class
	var set int64
	err := scan(&c.Name, &c.Conditions, &set, &c.By)
	c.Set = fromMicro(set)
	return c, err
}

// Classes returns the trust classes, sorted by name.
func (s *SQLite) Classes(ctx context.Context) ([]Class, error) {
	return list(ctx, s.read, scanClass, `SELECT name, conditions, at, operator FROM classes ORDER BY name`)
}

// Class returns one trust class, or ErrNotFound.
func (s *SQLite) Class(ctx context.Context, name string) (*Class, error) {
	c, err := scanClass(s.read.QueryRowContext(ctx, `SELECT name, conditions, at, operator FROM classes WHERE name = ?`, name).Scan)
	return &c, found(err, "trust class")
}

// PutClass writes a trust class.
func (s *SQLite) PutClass(ctx context.Context, c Class, act Act) error {
	return s.write(ctx, false, func(t *txn) error {
		_, err := t.exec(`INSERT INTO classes (name, conditions, at, operator) VALUES (?, ?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET conditions = excluded.conditions, at = excluded.at, operator = excluded.operator`,
			c.Name, c.Conditions, micro(c.Set), c.By)
		if err != nil {
			return err
		}
		return t.act(act)
	})
}

// DeleteClass removes a trust class, or returns ErrNotFound. Keys keep what it said when they were made.
func (s *SQLite) DeleteClass(ctx context.Context, name string, act Act) error {
	return s.write(ctx, true, func(t *txn) error {
		r, err := t.exec(`DELETE FROM classes WHERE name = ?`, name)
		if err := one(r, err, ErrNotFound); err != nil {
			return err
		}
		return t.act(act)
	})
}
