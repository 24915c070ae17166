package authority

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"

	"touchstone.dev/touchstone/internal/audit/archive"
	"touchstone.dev/touchstone/internal/backup"
	"touchstone.dev/touchstone/internal/keystore"
	"touchstone.dev/touchstone/internal/ledger"
	"touchstone.dev/touchstone/internal/store"
	"touchstone.dev/touchstone/internal/version"
)

const (
	databaseName = "aias.db"
	backupWork   = ".backup-" // and a random name: the copy of the database while it is read
)

// Backup writes all that AIAS needs to go on elsewhere: database, ledger and references, encrypted to the recipients. It may run beside the
// service, which goes on. The secrets in it are sealed under a key of the backup, so that it is restored without the key file, TPM or
// token of this machine.
func (a *Authority) Backup(ctx context.Context, w io.Writer, to ...age.Recipient) (err error) {
	out, err := backup.NewWriter(w, backup.Head{Created: a.now().UTC(), Version: version.String()}, to...)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	sweep(a.cfg.Data, a.now())
	work, err := os.MkdirTemp(a.cfg.Data, backupWork)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	// What the audit events that it holds show must be in the database; so where they stand is read before it. The ledger is read after the database:
	// it must not be behind what the database says of it.
	chains, err := archive.Keep(filepath.Join(a.cfg.Data, auditFolder), a.now())
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	audit := func(_ context.Context, out *backup.Writer, _ string) error { return backupAudit(out, chains) }
	for _, step := range []func(context.Context, *backup.Writer, string) error{a.backupDatabase, a.backupLedger, audit, a.backupReferences} {
		if err := step(ctx, out, work); err != nil {
			return fmt.Errorf("backup: %w", err)
		}
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}

// sweep takes away what backups left that were killed: copies whose secrets nobody can open any more.
func sweep(data string, now time.Time) {
	left, _ := filepath.Glob(filepath.Join(data, backupWork+"*")) // the pattern is ours
	for _, dir := range left {
		if info, err := os.Stat(dir); err == nil && now.Sub(info.ModTime()) > time.Hour {
			_ = os.RemoveAll(dir)
		}
	}
}

func (a *Authority) backupDatabase(ctx context.Context, out *backup.Writer, work string) error {
	path := filepath.Join(work, databaseName)
	if err := a.store.Snapshot(ctx, path); err != nil {
		return err
	}
	key := randomBytes(keySize)
	defer clear(key)
	kek, err := keystore.NewKey("file", key)
	if err != nil {
		return err
	}
	ring, err := keystore.NewRing(kek)
	if err != nil {
		return err
	}
	st, err := store.Open(ctx, path, nil)
	if err != nil {
		return err
	}
	err = transfer(ctx, st, a.secrets, ring)
	if err == nil {
		err = st.PutSettings(ctx, map[string][]byte{keysSetting: nil}, nil)
	}
	if err := errors.Join(err, st.Close(), oneFile(path)); err != nil {
		return err
	}
	if err := out.Add(backup.KeyName, keySize, bytes.NewReader(key)); err != nil {
		return err
	}
	return addFile(out, backup.Database, path)
}

// oneFile makes sure that a closed database has no log beside it, without which the file would be an older one.
func oneFile(path string) error {
	if info, err := os.Stat(path + "-wal"); err == nil && info.Size() > 0 {
		return fmt.Errorf("%s is still open: its log was not brought into the file", path)
	}
	return nil
}

func addFile(out *backup.Writer, name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return out.Add(name, info.Size(), f)
}

// transfer seals all secrets of a database, which nobody else has open, under another key.
func transfer(ctx context.Context, st store.Store, from, to keystore.KEK) error {
	v := &vault{store: st}
	return v.each(ctx, func(batch []store.Sealed) error {
		data := make([][]byte, len(batch))
		for i, s := range batch {
			plain, err := from.Unwrap(ctx, s.Data, []byte(s.AAD))
			if err == nil {
				data[i], err = to.Wrap(ctx, plain, []byte(s.AAD))
				clear(plain)
			}
			if err != nil {
				return fmt.Errorf("%s, %s: %w", s.Place, s.Key, err)
			}
		}
		n, err := st.Reseal(ctx, batch, data)
		if err == nil && n != len(batch) {
			err = fmt.Errorf("%d of %d secrets were sealed anew", n, len(batch))
		}
		return err
	})
}

// ledgerKeys returns the secret and the public key of the ledger.
func (v *vault) ledgerKeys(ctx context.Context) (secret, public string, err error) {
	keys, err := v.get(ctx, ledgerSecret)
	if err != nil {
		return "", "", err
	}
	secret, public, _ = strings.Cut(string(keys), "\n")
	return secret, public, nil
}

func (a *Authority) backupLedger(ctx context.Context, out *backup.Writer, _ string) error {
	_, public, err := a.vault.ledgerKeys(ctx)
	if notFound(err) {
		return nil // the service never ran
	}
	if err != nil {
		return err
	}
	r, err := ledger.NewReader(ledger.Folder(filepath.Join(a.cfg.Data, LedgerDir)), public)
	if err != nil {
		return err
	}
	cp, err := r.Checkpoint(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := out.Add(backup.Checkpoint, int64(len(cp.Text)), strings.NewReader(cp.Text)); err != nil {
		return err
	}
	n := 0
	for bundle, err := range r.Bundles(ctx, cp) {
		if err != nil {
			return err
		}
		if err := out.Add(fmt.Sprintf("%s%010d", backup.Entries, n), int64(len(bundle)), bytes.NewReader(bundle)); err != nil {
			return err
		}
		n++
	}
	return nil
}

func backupAudit(out *backup.Writer, chains []archive.Kept) error {
	for _, k := range chains {
		if err := out.Add(backup.Audit+k.Folder, int64(len(k.Book)), bytes.NewReader(k.Book)); err != nil {
			return err
		}
	}
	return nil
}

func (a *Authority) backupReferences(ctx context.Context, out *backup.Writer, _ string) error {
	root := a.cfg.References
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == root {
			return fs.SkipAll
		}
		if err != nil || !d.Type().IsRegular() {
			return errors.Join(err, ctx.Err())
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return addFile(out, backup.References+filepath.ToSlash(rel), path)
	})
}
