package store

import (
	"context"
	"time"
)

// WorkerScan is the newest scan of an image by a profile, content and tailoring that a worker made.
type WorkerScan struct {
	ImageScan
	Content, Tailoring string // SHA-256, hexadecimal; Tailoring may be empty
	Node               int64
	Received           time.Time
}

const workerScanColumns = imageScanColumns + `, content, tailoring, node, received`

func scanWorkerScan(scan func(...any) error) (WorkerScan, error) {
	var w WorkerScan
	var at, received int64
	err := scan(&w.Manifest, &w.Config, &w.Profile, &at, &w.Record, &w.Content, &w.Tailoring, &w.Node, &received)
	w.At, w.Received = fromMicro(at), fromMicro(received)
	return w, err
}

// WorkerScans returns the newest scans of images by workers, newest first; those of one image when digest, that of its manifest or configuration, is not empty.
func (s *SQLite) WorkerScans(ctx context.Context, digest string, limit int) ([]WorkerScan, error) {
	if digest == "" {
		return list(ctx, s.read, scanWorkerScan, `SELECT `+workerScanColumns+` FROM worker_scans ORDER BY at DESC LIMIT ?`, limit)
	}
	return list(ctx, s.read, scanWorkerScan, `SELECT `+workerScanColumns+` FROM worker_scans WHERE manifest = ?1 UNION SELECT `+workerScanColumns+
		` FROM worker_scans WHERE config = ?1 ORDER BY at DESC LIMIT ?2`, digest, limit)
}

// PutWorkerScan keeps a scan in place of an older one of the image by the same profile, content and tailoring. The oldest of all go when there are more than most.
func (s *SQLite) PutWorkerScan(ctx context.Context, w WorkerScan, most int) error {
	return s.write(ctx, false, func(t *txn) error {
		r, err := t.exec(`INSERT INTO worker_scans (`+workerScanColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (config, manifest, profile, content, tailoring)
			DO UPDATE SET at = excluded.at, record = excluded.record, node = excluded.node, received = excluded.received WHERE excluded.at >= worker_scans.at`,
			w.Manifest, w.Config, w.Profile, micro(w.At), w.Record, w.Content, w.Tailoring, w.Node, micro(w.Received))
		if err := one(r, err, ErrUsed); err != nil {
			return err
		}
		_, err = t.exec(`DELETE FROM worker_scans WHERE (config, manifest, profile, content, tailoring) IN
			(SELECT config, manifest, profile, content, tailoring FROM worker_scans ORDER BY at DESC LIMIT -1 OFFSET ?)`, most)
		return err
	})
}

// revoke takes away the scans of images that a node made of late.
func (t *txn) revoke(node int64, since time.Time) error {
	_, err := t.exec(`DELETE FROM worker_scans WHERE node = ? AND received >= ?`, node, micro(since))
	return err
}
