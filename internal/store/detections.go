package store

import "context"

// Detection is one that AIAS keeps of a node: what is known of it as JSON.
type Detection struct {
	Node int64
	ID   string
	Data []byte
}

// Seen is how far AIAS has looked through the audit events of a node.
type Seen struct {
	Seq uint64 // of the last entry
}

// DetectionStep changes the detections of a node.
type DetectionStep struct {
	Node   int64
	Put    []Detection // Node is that of the step
	Remove []string
	Seen   *Seen // nil: as it was
	Act    *Act  // of the operator whose doing the step is
}

// Detections returns those of all nodes.
func (s *SQLite) Detections(ctx context.Context) ([]Detection, error) {
	return list(ctx, s.read, func(scan func(...any) error) (Detection, error) {
		var d Detection
		err := scan(&d.Node, &d.ID, &d.Data)
		return d, err
	}, `SELECT node, id, data FROM detections ORDER BY node, id`)
}

// DetectionsSeen returns how far the events of each node were looked at.
func (s *SQLite) DetectionsSeen(ctx context.Context) (map[int64]Seen, error) {
	type row struct {
		node int64
		seen Seen
	}
	rows, err := list(ctx, s.read, func(scan func(...any) error) (row, error) {
		var r row
		var seq int64
		err := scan(&r.node, &seq)
		r.seen.Seq = uint64(seq) //nolint:gosec // written so
		return r, err
	}, `SELECT node, seen FROM detections_seen`)
	out := make(map[int64]Seen, len(rows))
	for _, r := range rows {
		out[r.node] = r.seen
	}
	return out, err
}

// SaveDetections writes a step as a whole.
func (s *SQLite) SaveDetections(ctx context.Context, d *DetectionStep) error {
	return s.write(ctx, false, func(t *txn) error {
		for _, p := range d.Put {
			if _, err := t.exec(`INSERT INTO detections (node, id, data) VALUES (?, ?, ?) ON CONFLICT (node, id) DO UPDATE SET data = excluded.data`, d.Node, p.ID, p.Data); err != nil {
				return err
			}
		}
		for _, id := range d.Remove {
			if _, err := t.exec(`DELETE FROM detections WHERE node = ? AND id = ?`, d.Node, id); err != nil {
				return err
			}
		}
		if d.Seen != nil {
			if _, err := t.exec(`INSERT INTO detections_seen (node, seen, boot) VALUES (?, ?, '') ON CONFLICT (node) DO UPDATE SET seen = excluded.seen`,
				d.Node, int64(d.Seen.Seq)); err != nil { //nolint:gosec // read back as it is written
				return err
			}
		}
		if d.Act != nil {
			return t.act(*d.Act)
		}
		return nil
	})
}
