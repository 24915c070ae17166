package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
	_ "modernc.org/sqlite" // the driver
)

// SQLite is the embedded Store.
type SQLite struct {
	file    string // how the database is opened
	read    *sql.DB
	wdb     *sql.DB
	queue   chan *write
	stop    chan struct{}
	stopped chan struct{}
	once    sync.Once
	batch   []*write
	wrote   atomic.Int64 // time of the last commit, nanoseconds; 0 after one that failed
	observe func(time.Duration)
	enc     *zstd.Encoder
	dec     *zstd.Decoder
}

const maxBlob = 64 << 20 // bytes of a log after decompression

// pragmas of every connection. synchronous(FULL) syncs the log at each commit; page size and cache are chosen for rows of a few KiB.
const pragmas = "_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_pragma=busy_timeout(10000)" +
	"&_pragma=cache_size(-16000)&_pragma=wal_autocheckpoint(4000)&_pragma=journal_size_limit(67108864)&_pragma=temp_store(MEMORY)"

// Open opens or makes the database file at path and brings it to the newest version. observe, when not nil, is told how long each write
// took from being handed over to being on disk.
func Open(ctx context.Context, path string, observe func(time.Duration)) (*SQLite, error) {
	s := &SQLite{
		queue: make(chan *write, maxQueue), stop: make(chan struct{}), stopped: make(chan struct{}), observe: observe,
	}
	err := private(path)
	if err != nil {
		return nil, err
	}
	if s.enc, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true)); err != nil {
		return nil, err
	}
	if s.dec, err = zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxBlob), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true)); err != nil {
		return nil, err
	}
	s.file = "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + pragmas
	if s.wdb, err = sql.Open("sqlite", s.file); err != nil {
		return nil, fmt.Errorf("open the database %s: %w", path, err)
	}
	s.wdb.SetMaxOpenConns(1)
	conn, err := s.wdb.Conn(ctx)
	if err != nil {
		_ = s.wdb.Close()
		return nil, fmt.Errorf("open the database %s: %w", path, err)
	}
	if err := migrate(ctx, conn); err != nil {
		_ = s.wdb.Close()
		return nil, err
	}
	if s.read, err = sql.Open("sqlite", s.file+"&_pragma=query_only(1)"); err != nil {
		_ = s.wdb.Close()
		return nil, fmt.Errorf("open the database %s: %w", path, err)
	}
	s.read.SetMaxOpenConns(4)
	go s.loop(&txn{ctx: context.Background(), conn: conn, prep: map[string]*sql.Stmt{}})
	return s, nil
}

// Snapshot writes a copy of the database as it is at one moment to a path where nothing is yet. Writes go on meanwhile.
func (s *SQLite) Snapshot(ctx context.Context, path string) error {
	db, err := sql.Open("sqlite", s.file)
	if err != nil {
		return fmt.Errorf("copy the database: %w", err)
	}
	defer db.Close() //nolint:errcheck // nothing was written through it
	if _, err := db.ExecContext(ctx, `VACUUM INTO ?`, path); err != nil {
		return fmt.Errorf("copy the database: %w", err)
	}
	return private(path)
}

// Check looks for damage in the whole file.
func (s *SQLite) Check(ctx context.Context) error {
	var answer string
	if err := s.read.QueryRowContext(ctx, `PRAGMA integrity_check(1)`).Scan(&answer); err != nil {
		return fmt.Errorf("check the database: %w", err)
	}
	if answer != "ok" {
		return fmt.Errorf("the database is damaged: %s", answer)
	}
	return nil
}

// private makes the database a file that only its owner can read, before SQLite makes it for everyone; its other files follow it.
func private(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	for _, p := range []string{path, path + "-wal", path + "-shm"} {
		if err := os.Chmod(p, 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("make the database private: %w", err)
		}
	}
	return nil
}

// Close writes what was accepted, and closes the database.
func (s *SQLite) Close() error {
	var err error
	s.once.Do(func() {
		close(s.stop)
		<-s.stopped
		err = errors.Join(s.read.Close(), s.wdb.Close())
		s.dec.Close()
		_ = s.enc.Close()
	})
	return err
}

// pingFresh is how long a commit vouches for the next one.
const pingFresh = 10 * time.Second

// Ping tells whether the database takes writes and answers. When the last commit was long ago, or failed, it writes a value to find out: a full
// disk answers reads for ever.
func (s *SQLite) Ping(ctx context.Context) error {
	if time.Now().UnixNano()-s.wrote.Load() > int64(pingFresh) {
		err := s.PutSettings(ctx, map[string][]byte{"probe": []byte(time.Now().UTC().Format(time.RFC3339))}, nil)
		if err != nil {
			return fmt.Errorf("the database takes no writes: %w", err)
		}
	}
	var n int
	return s.read.QueryRowContext(ctx, `SELECT 1`).Scan(&n)
}

// Setting returns one value, or ErrNotFound.
func (s *SQLite) Setting(ctx context.Context, key string) ([]byte, error) {
	var v []byte
	err := s.read.QueryRowContext(ctx, `SELECT value FROM settings WHERE key = ?`, key).Scan(&v)
	return v, found(err, "setting "+key)
}

// PutSettings writes all values or none; a nil value removes the setting.
func (s *SQLite) PutSettings(ctx context.Context, values map[string][]byte, act *Act) error {
	return s.write(ctx, false, func(t *txn) error {
		for k, v := range values {
			if v == nil {
				if _, err := t.exec(`DELETE FROM settings WHERE key = ?`, k); err != nil {
					return err
				}
				continue
			}
			if _, err := t.exec(`INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, k, v); err != nil {
				return err
			}
		}
		if act == nil {
			return nil
		}
		return t.act(*act)
	})
}

func (t *txn) act(a Act) error {
	_, err := t.exec(`INSERT INTO acts (at, operator, act, object, detail) VALUES (?, ?, ?, ?, ?)`, micro(a.At), a.Operator, a.Act, a.Object, a.Detail)
	return err
}

func found(err error, what string) error {
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%s: %w", what, ErrNotFound)
	}
	return err
}

// micro is how times are stored: microseconds since 1970, 0 for the zero time.
func micro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicro(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

func (s *SQLite) pack(b []byte) []byte { return s.enc.EncodeAll(b, nil) }

func (s *SQLite) unpack(b []byte) ([]byte, error) { return s.dec.DecodeAll(b, nil) }
