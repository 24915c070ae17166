package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

const (
	maxBatch = 512  // writes in one transaction
	maxQueue = 8192 // writes that wait

	// spacing is between the starts of two transactions while writers come in numbers. A transaction costs about the same whatever the number of
	// its writes: at a thousand attestations a second this saves a third of the CPU of AIAS, for some 3 ms more until the answer.
	spacing = 5 * time.Millisecond
)

// errClosed is what a write gets after Close.
var errClosed = errors.New("the database is closed")

// write is one unit of work for the writer.
type write struct {
	run func(tx *txn) error
	// clean promises that run has written nothing when it returns a refusal, so that it needs no savepoint.
	clean bool
	err   error
	done  chan struct{}
}

// txn is what a write sees: statements on the writer's connection, inside its transaction.
type txn struct {
	ctx  context.Context
	conn *sql.Conn
	prep map[string]*sql.Stmt
}

// exec runs a statement that is prepared once and kept.
func (t *txn) exec(query string, args ...any) (sql.Result, error) {
	st, err := t.stmt(query) //nolint:sqlclosecheck // kept and closed with the transaction's connection
	if err != nil {
		return nil, err
	}
	return st.ExecContext(t.ctx, args...)
}

func (t *txn) row(query string, args ...any) (*sql.Row, error) {
	st, err := t.stmt(query) //nolint:sqlclosecheck // kept and closed with the transaction's connection
	if err != nil {
		return nil, err
	}
	return st.QueryRowContext(t.ctx, args...), nil
}

func (t *txn) stmt(query string) (*sql.Stmt, error) {
	if st, ok := t.prep[query]; ok {
		return st, nil
	}
	st, err := t.conn.PrepareContext(t.ctx, query)
	if err != nil {
		return nil, err
	}
	t.prep[query] = st
	return st, nil
}

// close gives the connection back, so that the database can be closed: the last one to close it brings its log into the file.
func (t *txn) close() {
	for _, st := range t.prep {
		_ = st.Close()
	}
	_ = t.conn.Close()
}

// write hands w to the writer and waits until it is committed. When ctx ends first the write may still happen: its caller knows no more
// than after a lost answer.
func (s *SQLite) write(ctx context.Context, clean bool, run func(tx *txn) error) error {
	w := &write{run: run, clean: clean, done: make(chan struct{})}
	start := time.Now()
	select {
	case <-s.stop:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	case s.queue <- w:
	}
	select {
	case <-w.done:
		if s.observe != nil {
			s.observe(time.Since(start))
		}
		return w.err
	case <-s.stopped:
		return errClosed
	}
}

// loop is the only goroutine that writes.
func (s *SQLite) loop(t *txn) {
	defer close(s.stopped)
	defer t.close()
	var last time.Time // start of the last transaction
	crowd := false     // it had more than one write: a single writer never waits
	for {
		select {
		case w := <-s.queue:
			if crowd {
				time.Sleep(spacing - time.Since(last))
			}
			last = time.Now()
			batch := s.gather(w)
			crowd = len(batch) > 1
			s.commit(t, batch)
		case <-s.stop:
			for { // what was accepted before Close is still written
				select {
				case w := <-s.queue:
					s.commit(t, s.gather(w))
				default:
					return
				}
			}
		}
	}
}

// gather takes what waits. While one batch is synced to disk the next one collects: under load batches grow by themselves.
func (s *SQLite) gather(first *write) []*write {
	batch := append(s.batch[:0], first)
	for len(batch) < maxBatch {
		select {
		case w := <-s.queue:
			batch = append(batch, w)
		default:
			s.batch = batch
			return batch
		}
	}
	s.batch = batch
	return batch
}

func (s *SQLite) commit(t *txn, batch []*write) {
	err := t.all(batch)
	if err != nil && len(batch) > 1 {
		// One write broke the transaction: each gets its own, so that nobody fails for another.
		for _, w := range batch {
			if err = t.all([]*write{w}); err != nil {
				w.err = err
			}
		}
	} else if err != nil {
		batch[0].err = err
	}
	s.wrote.Store(0)
	if err == nil {
		s.wrote.Store(time.Now().UnixNano())
	}
	for i, w := range batch {
		close(w.done)
		batch[i] = nil
	}
}

// all runs a batch in one transaction. Refusals (errors of a clean write or inside a savepoint) stay with their write; anything else
// rolls the whole batch back.
func (t *txn) all(batch []*write) error {
	if _, err := t.exec(`BEGIN IMMEDIATE`); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	for _, w := range batch {
		w.err = nil
		if err := t.one(w); err != nil {
			_, _ = t.exec(`ROLLBACK`)
			return err
		}
	}
	if _, err := t.exec(`COMMIT`); err != nil {
		_, _ = t.exec(`ROLLBACK`)
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

func (t *txn) one(w *write) error {
	if w.clean {
		err := w.run(t)
		if refusal(err) {
			w.err, err = err, nil
		}
		return err
	}
	if _, err := t.exec(`SAVEPOINT w`); err != nil {
		return err
	}
	if w.err = w.run(t); w.err != nil {
		if _, err := t.exec(`ROLLBACK TO w`); err != nil {
			return err
		}
	}
	_, err := t.exec(`RELEASE w`)
	return err
}

func refusal(err error) bool {
	for _, r := range []error{ErrNotFound, ErrUsed, ErrToken, ErrNameTaken, ErrTPMTaken} {
		if errors.Is(err, r) {
			return true
		}
	}
	return false
}
