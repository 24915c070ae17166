package store

import (
	"context"
	"time"
)

// ImageScan is the newest scan of an image by a profile.
type ImageScan struct {
	Manifest, Config string // digests; Manifest may be empty
	Profile          string // empty: only for vulnerabilities
	At               time.Time
	Record           []byte // JSON of protocol.ImageResult
}

const imageScanColumns = `manifest, config, profile, at, record`

func scanImageScan(scan func(...any) error) (ImageScan, error) {
	var i ImageScan
	var at int64
	err := scan(&i.Manifest, &i.Config, &i.Profile, &at, &i.Record)
	i.At = fromMicro(at)
	return i, err
}

// ImageScans returns the newest scans of images, newest first; those of one image when digest, that of its manifest or configuration, is not empty.
func (s *SQLite) ImageScans(ctx context.Context, digest string, limit int) ([]ImageScan, error) {
	if digest == "" {
		return list(ctx, s.read, scanImageScan, `SELECT `+imageScanColumns+` FROM image_scans ORDER BY at DESC LIMIT ?`, limit)
	}
	return list(ctx, s.read, scanImageScan, `SELECT `+imageScanColumns+` FROM image_scans WHERE manifest = ?1 UNION SELECT `+imageScanColumns+
		` FROM image_scans WHERE config = ?1 ORDER BY at DESC LIMIT ?2`, digest, limit)
}

// PutImageScan keeps a scan unless a newer one of the image by the profile is there: then it returns ErrUsed. The oldest of all go when there are more than most.
func (s *SQLite) PutImageScan(ctx context.Context, i ImageScan, most int, act Act) error {
	return s.write(ctx, false, func(t *txn) error {
		r, err := t.exec(`INSERT INTO image_scans (`+imageScanColumns+`) VALUES (?, ?, ?, ?, ?) ON CONFLICT (config, manifest, profile)
			DO UPDATE SET at = excluded.at, record = excluded.record WHERE excluded.at >= image_scans.at`, i.Manifest, i.Config, i.Profile, micro(i.At), i.Record)
		if err := one(r, err, ErrUsed); err != nil {
			return err
		}
		if _, err := t.exec(`DELETE FROM image_scans WHERE (config, manifest, profile) IN (SELECT config, manifest, profile FROM image_scans ORDER BY at DESC LIMIT -1 OFFSET ?)`, most); err != nil {
			return err
		}
		return t.act(act)
	})
}
