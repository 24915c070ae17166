package authority

import (
	"context"
	"errors"
	"fmt"
	"io"
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
)

// Names in a data folder that is being restored. While the mark is there without a database the folder is none yet.
const (
	restoreMark = "restoring"
	restoreWork = ".restore"
)

// errHalfRestored is what opening such a folder says.
var errHalfRestored = errors.New("a restore was stopped here before its end: run aias restore again")

// HalfRestored returns an error for a data folder whose restore was stopped.
func HalfRestored(data string) error {
	if there(filepath.Join(data, restoreMark)) && !there(filepath.Join(data, databaseName)) {
		return errHalfRestored
	}
	return nil
}

func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// restore is a restore under way.
type restore struct {
	cfg     Config
	without bool // an HSM
	clean   bool // nothing is in the folder yet but the work folder and the mark
	work    string
	key     *keystore.Ring // of the backup
	store   *store.SQLite
	vault   *vault
	rebuild *ledger.Rebuild
	text    string // checkpoint of the ledger
	refs    bool
	chains  []archive.Kept
}

// Restore makes the data folder of a configuration from a backup. The whole backup is read and found whole before anything is written. The database
// comes last, by a rename: whoever stops it before that leaves no AIAS, and can run it again. The secrets are sealed under the key that the
// configuration names, which is made when it is not there.
//
// Exchange keys of disks that are in an HSM are tried before anything else: they are not in the backup.
func Restore(ctx context.Context, cfg Config, in io.ReadSeeker, now time.Time, ids ...age.Identity) (backup.Head, error) {
	return (&restore{cfg: cfg}).run(ctx, in, now, ids)
}

func (r *restore) run(ctx context.Context, in io.ReadSeeker, now time.Time, ids []age.Identity) (backup.Head, error) {
	cfg := &r.cfg
	if err := cfg.complete(); err != nil {
		return backup.Head{}, err
	}
	if there(filepath.Join(cfg.Data, databaseName)) {
		return backup.Head{}, fmt.Errorf("%s has an AIAS already: restore into an empty folder, or move that one away", cfg.Data)
	}
	head, err := VerifyBackup(in, ids...)
	if err == nil {
		_, err = in.Seek(0, io.SeekStart)
	}
	if err != nil {
		return head, err
	}
	r.work = filepath.Join(cfg.Data, restoreWork)
	defer r.close()
	if err := r.prepare(); err != nil {
		return head, fmt.Errorf("restore: %w", err)
	}
	_, err = backup.Read(in, func(name string, _ int64, from io.Reader) error { return r.member(ctx, name, from) }, ids...)
	if err == nil {
		err = r.finish(ctx, head, now)
	}
	if err != nil {
		return head, fmt.Errorf("restore: %w", err)
	}
	return head, nil
}

// VerifyBackup reads a backup to its end, and writes nothing.
func VerifyBackup(in io.Reader, ids ...age.Identity) (backup.Head, error) {
	return backup.Read(in, func(_ string, _ int64, r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	}, ids...)
}

// prepare marks the folder, and takes away what an earlier attempt left.
func (r *restore) prepare() error {
	if err := os.MkdirAll(r.cfg.Data, 0o700); err != nil {
		return err
	}
	mark := filepath.Join(r.cfg.Data, restoreMark)
	if !there(mark) {
		for _, name := range []string{LedgerDir, "references"} {
			if there(filepath.Join(r.cfg.Data, name)) && !emptyDir(filepath.Join(r.cfg.Data, name)) {
				return fmt.Errorf("%s holds %s already: restore into an empty folder", r.cfg.Data, name)
			}
		}
		if err := writeNew(mark, nil); err != nil {
			return err
		}
	}
	for _, name := range []string{r.work, filepath.Join(r.cfg.Data, LedgerDir), filepath.Join(r.cfg.Data, "references")} {
		if err := os.RemoveAll(name); err != nil {
			return err
		}
	}
	if err := os.Mkdir(r.work, 0o700); err != nil {
		return err
	}
	r.clean = true
	return nil
}

func emptyDir(path string) bool {
	entries, err := os.ReadDir(path)
	return err == nil && len(entries) == 0
}

// member writes one member of the backup into the work folder.
func (r *restore) member(ctx context.Context, name string, from io.Reader) error {
	switch {
	case name == backup.KeyName:
		key, err := io.ReadAll(from)
		if err != nil {
			return err
		}
		kek, err := keystore.NewKey("file", key)
		if err != nil {
			return err
		}
		r.key, err = keystore.NewRing(kek)
		return err
	case name == backup.Database:
		if err := writeFrom(filepath.Join(r.work, databaseName), from); err != nil {
			return err
		}
		return r.open(ctx)
	case r.store == nil:
		return fmt.Errorf("%w: %s comes before the database", backup.ErrDamaged, name)
	case name == backup.Checkpoint:
		text, err := io.ReadAll(from)
		if err != nil {
			return err
		}
		r.text = string(text)
		return r.begin(ctx)
	case strings.HasPrefix(name, backup.Audit):
		return r.chain(strings.TrimPrefix(name, backup.Audit), from)
	case strings.HasPrefix(name, backup.References):
		r.refs = true
		path := filepath.Join(r.work, "references", filepath.FromSlash(strings.TrimPrefix(name, backup.References)))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		return writeFrom(path, from)
	case r.rebuild == nil:
		return fmt.Errorf("%w: %s comes before the checkpoint", backup.ErrDamaged, name)
	}
	bundle, err := io.ReadAll(from)
	if err != nil {
		return err
	}
	return r.rebuild.Add(ctx, bundle)
}

// chain takes where the audit chain of a node stood.
func (r *restore) chain(folder string, from io.Reader) error {
	book, err := io.ReadAll(from)
	r.chains = append(r.chains, archive.Kept{Folder: folder, Book: book})
	return err
}

// plant puts the audit chains where they are not. What is there is an archive with events, which somebody copied, or an attempt before this one.
func (r *restore) plant() error {
	dir := filepath.Join(r.cfg.Data, auditFolder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, k := range r.chains {
		if there(filepath.Join(dir, k.Folder)) {
			continue
		}
		if err := archive.Plant(dir, k); err != nil {
			return fmt.Errorf("audit chains: %w", err)
		}
	}
	return syncDir(dir)
}

// open brings the secrets of the database under the key that the configuration names.
func (r *restore) open(ctx context.Context) (err error) {
	if r.key == nil {
		return fmt.Errorf("%w: it has no key", backup.ErrDamaged)
	}
	if r.store, err = store.Open(ctx, filepath.Join(r.work, databaseName), nil); err != nil {
		return err
	}
	if err := r.store.Check(ctx); err != nil {
		return err
	}
	if err := r.tryHSM(ctx); err != nil {
		return err
	}
	r.vault = &vault{store: r.store}
	if r.vault.ring, err = keystore.Open(ctx, r.cfg.Keys, r.vault); err != nil {
		return err
	}
	r.clean = false
	return transfer(ctx, r.store, r.key, r.vault.ring)
}

func (r *restore) begin(ctx context.Context) error {
	secret, public, err := r.vault.ledgerKeys(ctx)
	if err != nil {
		return fmt.Errorf("key of the ledger: %w", err)
	}
	r.rebuild, err = ledger.NewRebuild(ctx, filepath.Join(r.work, LedgerDir), secret, public)
	return err
}

// finish puts everything in its place, the database last.
func (r *restore) finish(ctx context.Context, head backup.Head, now time.Time) error {
	if r.store == nil {
		return fmt.Errorf("%w: it has no database", backup.ErrDamaged)
	}
	if r.rebuild != nil {
		b := r.rebuild
		r.rebuild = nil
		if err := b.Close(ctx, r.text); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(r.work, LedgerDir), filepath.Join(r.cfg.Data, LedgerDir)); err != nil {
			return err
		}
	}
	act := store.Act{At: now, Operator: "local", Act: "restore", Object: head.Created.Format(time.RFC3339), Detail: "backup of " + head.Version}
	st := r.store
	if err := st.PutSettings(ctx, nil, &act); err != nil {
		return err
	}
	r.store = nil
	if err := errors.Join(st.Close(), oneFile(filepath.Join(r.work, databaseName))); err != nil {
		return err
	}
	if r.refs {
		if err := os.Rename(filepath.Join(r.work, "references"), filepath.Join(r.cfg.Data, "references")); err != nil {
			return err
		}
	}
	if err := r.plant(); err != nil {
		return err
	}
	if err := syncDir(r.cfg.Data); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(r.work, databaseName), filepath.Join(r.cfg.Data, databaseName)); err != nil {
		return err
	}
	if err := syncDir(r.cfg.Data); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(r.work), os.Remove(filepath.Join(r.cfg.Data, restoreMark)))
}

// close lets go of what a restore that failed has open.
func (r *restore) close() {
	if r.rebuild != nil {
		r.rebuild.Abandon()
	}
	if r.store != nil {
		_ = r.store.Close()
	}
	if !there(filepath.Join(r.cfg.Data, databaseName)) {
		if os.RemoveAll(r.work) == nil && r.clean {
			_ = os.Remove(filepath.Join(r.cfg.Data, restoreMark))
		}
	}
}

// writeFrom writes a new file for its owner only, and has it on disk when it returns.
func writeFrom(path string, from io.Reader) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path) //nolint:gosec // the data folder
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
