package store

import "context"

// ScanAsk is a compliance scan of a node that was asked for and has not come.
type ScanAsk struct {
	Node, Number int64
	Documents    bool // ARF and HTML are wanted too
}

// ScanAsks returns the scans that were asked for and have not come.
func (s *SQLite) ScanAsks(ctx context.Context) ([]ScanAsk, error) {
	return list(ctx, s.read, func(scan func(...any) error) (ScanAsk, error) {
		var a ScanAsk
		return a, scan(&a.Node, &a.Number, &a.Documents)
	}, `SELECT node, number, documents FROM scan_asks`)
}

// PutScanAsk keeps that a scan was asked for; a newer one takes the place of an older one, whose wish for documents stays.
func (s *SQLite) PutScanAsk(ctx context.Context, a ScanAsk) error {
	return s.write(ctx, false, func(t *txn) error {
		_, err := t.exec(`INSERT INTO scan_asks (node, number, documents) VALUES (?, ?, ?)
			ON CONFLICT (node) DO UPDATE SET number = max(number, excluded.number), documents = max(documents, excluded.documents)`, a.Node, a.Number, a.Documents)
		return err
	})
}

// DropScanAsk forgets what was asked for up to a number: it has come.
func (s *SQLite) DropScanAsk(ctx context.Context, node, upTo int64) error {
	return s.write(ctx, false, func(t *txn) error {
		_, err := t.exec(`DELETE FROM scan_asks WHERE node = ? AND number <= ?`, node, upTo)
		return err
	})
}
