package store

import "context"

// Compliance is what is kept of the compliance scans of a node.
type Compliance struct {
	Node     int64
	Newest   []byte // JSON of AIAS's record of the newest scan that came to a result; nil: none
	Previous []byte // of the one before
	Error    []byte // of the newest attempt that came to none; nil: none since Newest
	Result   []byte // TestResult of the newest, gzip
}

// Compliances returns what is kept of the scans of all nodes, without their TestResults.
func (s *SQLite) Compliances(ctx context.Context) ([]Compliance, error) {
	return list(ctx, s.read, func(scan func(...any) error) (Compliance, error) {
		var c Compliance
		err := scan(&c.Node, &c.Newest, &c.Error)
		return c, err
	}, `SELECT node, newest, error FROM compliance`)
}

// Compliance returns what is kept of the scans of a node, or ErrNotFound.
func (s *SQLite) Compliance(ctx context.Context, node int64) (*Compliance, error) {
	c := Compliance{Node: node}
	err := s.read.QueryRowContext(ctx, `SELECT newest, previous, error, result FROM compliance WHERE node = ?`, node).Scan(&c.Newest, &c.Previous, &c.Error, &c.Result)
	return &c, found(err, "compliance scans")
}

// PutScan keeps a scan as the newest of a node; the newest until now becomes the one before.
func (s *SQLite) PutScan(ctx context.Context, node int64, record, result []byte) error {
	return s.write(ctx, false, func(t *txn) error {
		_, err := t.exec(`INSERT INTO compliance (node, newest, result) VALUES (?, ?, ?)
			ON CONFLICT (node) DO UPDATE SET previous = compliance.newest, newest = excluded.newest, result = excluded.result, error = NULL`, node, record, result)
		return err
	})
}

// PutScanError keeps why the newest scan of a node came to no result.
func (s *SQLite) PutScanError(ctx context.Context, node int64, record []byte) error {
	return s.write(ctx, false, func(t *txn) error {
		_, err := t.exec(`INSERT INTO compliance (node, error) VALUES (?, ?) ON CONFLICT (node) DO UPDATE SET error = excluded.error`, node, record)
		return err
	})
}
