package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"touchstone.dev/touchstone/internal/authority"
	"touchstone.dev/touchstone/internal/store"
)

// Names in the data folder.
const (
	databaseFile = "aias.db"
	lockFile     = "aias.lock"      // held by the service
	openFile     = "aias.open.lock" // held while a command opens the folder
)

// openTime bounds the wait for another command that opens the same folder.
const openTime = 30 * time.Second

// options are the flags that all commands share.
type options struct {
	config, data, listen, address, softwareTPMs string
}

// load reads the configuration file, if there is one, and lets the flags override it.
func (o *options) load() (authority.Config, error) {
	var text []byte
	if o.config != "" {
		b, err := os.ReadFile(o.config)
		if err != nil {
			return authority.Config{}, fmt.Errorf("read the configuration: %w", err)
		}
		text = b
	}
	return authority.ParseConfig(text, func(c *authority.Config) {
		for _, f := range []struct {
			flag  string
			field *string
		}{{o.data, &c.Data}, {o.listen, &c.Listen}, {o.address, &c.Address}, {o.softwareTPMs, &c.SoftwareTPMRoots}} {
			if f.flag != "" {
				*f.field = f.flag
			}
		}
	})
}

// service is an opened AIAS.
type service struct {
	config    authority.Config
	authority *authority.Authority
	store     *store.SQLite
	log       *slog.Logger
}

func (s *service) close() {
	if err := s.store.Close(); err != nil {
		s.log.Error("close the database", "err", err)
	}
}

func (o *options) open(ctx context.Context) (*service, error) {
	c, err := o.load()
	if err != nil {
		return nil, err
	}
	return openWith(ctx, c)
}

// openQuiet is open for commands that end at once: the log says nothing but what is wrong.
func (o *options) openQuiet(ctx context.Context) (*service, error) {
	c, err := o.load()
	if err != nil {
		return nil, err
	}
	c.Log.Level = slog.LevelError.String()
	return openWith(ctx, c)
}

// lock makes sure that one service at a time works with a data folder: two would overwrite what the other knows of its nodes.
func (o *options) lock() (unlock func(), err error) {
	c, err := o.load()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	if unlock, err = flock(filepath.Join(c.Data, lockFile)); err != nil {
		return nil, fmt.Errorf("another `aias serve` works with %s (%w): stop it first, or give this one a folder of its own", c.Data, err)
	}
	return unlock, nil
}

func flock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil { //nolint:gosec // a descriptor fits
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}

// alone waits until no other command opens the data folder: of two that find it new, each would make a CA.
func alone(ctx context.Context, dir string) (done func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	for {
		done, err = flock(filepath.Join(dir, openFile))
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return done, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("another aias has been opening %s for %v: %w", dir, openTime, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func openWith(ctx context.Context, c authority.Config) (_ *service, err error) {
	s := &service{config: c, log: newLogger(os.Stderr, c.Log)}
	slog.SetDefault(s.log)
	done, err := alone(ctx, c.Data)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := authority.HalfRestored(c.Data); err != nil {
		return nil, err
	}
	for _, dir := range []string{c.Data, c.References} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the folder: %w", err)
		}
	}
	if s.store, err = openStore(ctx, c, func(d time.Duration) {
		if s.authority != nil {
			s.authority.ObserveWrite(d)
		}
	}); err != nil {
		return nil, err
	}
	a, err := authority.New(ctx, c, authority.Dependencies{Store: s.store, Load: authority.LoadFrom(c.References), Log: s.log})
	if err != nil {
		s.close()
		return nil, err
	}
	s.authority = a
	return s, nil
}

func openStore(ctx context.Context, c authority.Config, observe func(time.Duration)) (*store.SQLite, error) {
	return store.Open(ctx, filepath.Join(c.Data, databaseFile), observe)
}

func newLogger(w io.Writer, l authority.LogSettings) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(l.Level)) // checked with the configuration
	opts := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
