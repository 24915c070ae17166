package store

import "context"

// tagColumns are those of table tags, in the order of Tag's fields.
const tagColumns = `node, serial, tags, record, issued, proven, since, reason, earlier, earlier_tags`

func scanTag(scan func(...any) error) (Tag, error) {
	var t Tag
	var issued, since int64
	err := scan(&t.Node, &t.Serial, &t.Tags, &t.Record, &issued, &t.Proven, &since, &t.Reason, &t.Earlier, &t.EarlierTags)
	t.Issued, t.Since = fromMicro(issued), fromMicro(since)
	return t, err
}

// Tags returns the asset tags of all node names that ever had some.
func (s *SQLite) Tags(ctx context.Context) ([]Tag, error) {
	return list(ctx, s.read, scanTag, `SELECT `+tagColumns+` FROM tags ORDER BY node`)
}

// Tag returns the asset tags of a node name, or ErrNotFound when it never had some.
func (s *SQLite) Tag(ctx context.Context, node string) (*Tag, error) {
	t, err := scanTag(s.read.QueryRowContext(ctx, `SELECT `+tagColumns+` FROM tags WHERE node = ?`, node).Scan)
	return &t, found(err, "asset tags")
}

// tag writes asset tags. A serial that is not the newest is left out: serials only count up.
func (t *txn) tag(g *Tag) error {
	r, err := t.exec(`INSERT INTO tags (`+tagColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (node) DO UPDATE SET serial = excluded.serial, tags = excluded.tags, record = excluded.record, issued = excluded.issued,
		proven = excluded.proven, since = excluded.since, reason = excluded.reason, earlier = excluded.earlier, earlier_tags = excluded.earlier_tags
		WHERE excluded.serial >= tags.serial`,
		g.Node, int64(g.Serial), g.Tags, g.Record, micro(g.Issued), g.Proven, micro(g.Since), g.Reason, g.Earlier, g.EarlierTags)
	return one(r, err, ErrSerial)
}

// forgetTags takes the tags of a node name away and keeps their serial, so that no record that was ever issued counts again.
func (t *txn) forgetTags(name string) error {
	_, err := t.exec(`UPDATE tags SET tags = NULL, record = NULL, proven = 0, reason = '', earlier = NULL, earlier_tags = NULL WHERE node = ?`, name)
	return err
}
