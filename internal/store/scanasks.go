package store

import "context"

// ScanAsks returns the numbers of compliance scans that were asked for and have not come, by node.
func (s *SQLite) ScanAsks(ctx context.Context) (map[int64]int64, error) {
	all, err := list(ctx, s.read, func(scan func(...any) error) (out [2]int64, err error) {
		return out, scan(&out[0], &out[1])
	}, `SELECT node, number FROM scan_asks`)
	asks := make(map[int64]int64, len(all))
	for _, a := range all {
		asks[a[0]] = a[1]
	}
	return asks, err
}

// PutScanAsk keeps that a scan was asked for; a newer one takes the place of an older one.
func (s *SQLite) PutScanAsk(ctx context.Context, node, number int64) error {
	return s.write(ctx, false, func(t *txn) error {
		_, err := t.exec(`INSERT INTO scan_asks (node, number) VALUES (?, ?) ON CONFLICT (node) DO UPDATE SET number = max(number, excluded.number)`, node, number)
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
