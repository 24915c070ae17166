package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
)

const (
	maxQueue = 4096 // entries that wait to be written; Append waits when there are more
	maxBatch = 1024 // entries written together

	// CheckpointInterval is the longest time until a checkpoint covers an entry that is on disk.
	CheckpointInterval = 100 * time.Millisecond
	closeTime          = 10 * time.Second
)

// ErrClosed is what Append answers when there is no ledger to write to.
var ErrClosed = errors.New("the ledger is not open: nothing that must be recorded can be done now")

// NewKey returns a new signing key of a ledger, with a name of its own, and the public key to verify by.
func NewKey() (secret, public string, err error) {
	name := make([]byte, 4)
	_, _ = rand.Read(name) // never fails: crypto/rand ends the program instead
	return note.GenerateKey(rand.Reader, fmt.Sprintf("touchstone-ledger-%x", name))
}

// Ledger is an open ledger. One process at a time may have it open. A nil Ledger refuses all entries.
type Ledger struct {
	dir     string
	public  string
	add     tessera.AddFn
	journal *journal
	stop    func() error
	cancel  context.CancelFunc
	reader  *Reader
	now     func() time.Time

	queue     chan *item
	closing   chan struct{}
	done      chan struct{} // the writer has ended
	sequenced chan struct{} // and so has what brings entries into the tree
	once      sync.Once
	repeats   *repeats
	spare     reserve // of the goroutine that writes to the tree
}

// item is what waits to be written.
type item struct {
	data []byte
	done chan error
}

// Open opens or begins the ledger in a folder. secret is what NewKey made; public must belong to it.
func Open(ctx context.Context, dir, secret, public string) (*Ledger, error) {
	useLog()
	signer, err := note.NewSigner(secret)
	if err != nil {
		return nil, errors.New("the signing key of the ledger is damaged") // its text must not be in the message
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the ledger: %w", err)
	}
	driver, err := posix.New(ctx, posix.Config{Path: dir})
	if err != nil {
		return nil, fmt.Errorf("open the ledger: %w", err)
	}
	var spare reserve
	err = spare.fill()
	spare.release() // for the lock that Tessera opens now
	if err != nil {
		return nil, fmt.Errorf("open the ledger in %s: %w", dir, err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	// Batches are gathered here; Tessera is handed each at once, and told not to wait for more.
	appender, stop, tree, err := tessera.NewAppender(ctx, driver, tessera.NewAppendOptions().
		WithCheckpointSigner(signer).WithBatching(tessera.DefaultBatchMaxSize, time.Millisecond).WithPushback(2*maxQueue).
		WithCheckpointInterval(CheckpointInterval).WithShutdownTimeout(closeTime))
	if err != nil {
		cancel()
		return nil, fmt.Errorf("open the ledger in %s: %w", dir, err)
	}
	l := &Ledger{
		dir: dir, public: public, add: appender.Add, stop: func() error { return stop(ctx) }, cancel: cancel, now: time.Now,
		queue: make(chan *item, maxQueue), closing: make(chan struct{}), done: make(chan struct{}), sequenced: make(chan struct{}),
	}
	l.repeats = newRepeats(func() time.Time { return l.now() })
	if l.reader, err = NewReader(Folder(dir), public); err == nil {
		_, err = l.reader.Checkpoint(ctx)
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("open the ledger in %s: %w: is it the ledger of another AIAS?", dir, err)
	}
	if err := l.start(ctx, secret, tree); err != nil {
		cancel()
		return nil, fmt.Errorf("open the ledger in %s: %w", dir, err)
	}
	return l, nil
}

// start takes up what the journal holds, and begins to write.
func (l *Ledger) start(ctx context.Context, secret string, tree tessera.LogReader) error {
	size, err := tree.IntegratedSize(ctx)
	if err != nil {
		return err
	}
	var entries [][]byte
	if l.journal, entries, err = openJournal(l.dir, secret, size); err != nil {
		return err
	}
	if err := l.recover(ctx, entries, size); err != nil {
		l.journal.drain()
		return errors.Join(err, l.journal.f.Close())
	}
	go l.loop()
	return nil
}

// Append writes an entry, and returns when it is on disk. A refusal that only repeats an earlier one is counted, and returns nil at once; see
// RepeatWindow. When ctx ends first the entry may still be written.
func (l *Ledger) Append(ctx context.Context, e Entry) error {
	if l == nil {
		return ErrClosed
	}
	if e.Time.IsZero() {
		e.Time = l.now()
	}
	if e.Kind == KeyRefused {
		var once bool
		if e.Repeated, once = l.repeats.count(e); !once {
			return nil
		}
	}
	return l.write(ctx, e)
}

// AppendAll writes entries in their order, and returns when all are on disk; after an error some may be.
func (l *Ledger) AppendAll(ctx context.Context, entries []Entry) error {
	return l.write(ctx, entries...)
}

func (l *Ledger) write(ctx context.Context, entries ...Entry) error {
	if l == nil {
		return ErrClosed
	}
	items := make([]*item, 0, len(entries))
	for _, e := range entries {
		data, err := e.encode()
		if err != nil {
			return err
		}
		items = append(items, &item{data, make(chan error, 1)})
	}
	return l.put(ctx, items)
}

// put hands items to the writer, and waits until they are on disk.
func (l *Ledger) put(ctx context.Context, items []*item) error {
	for _, i := range items {
		select {
		case <-l.closing:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		case l.queue <- i:
		}
	}
	var errs error
	for _, i := range items {
		select {
		case err := <-i.done:
			errs = errors.Join(errs, err)
		case <-l.done:
			select { // it may have been the last that was written
			case err := <-i.done:
				errs = errors.Join(errs, err)
			default:
				return ErrClosed
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errs
}

// loop is the only goroutine that writes to the journal.
func (l *Ledger) loop() {
	defer close(l.done)
	tick := time.NewTicker(RepeatWindow)
	defer tick.Stop()
	for {
		select {
		case first := <-l.queue:
			l.commit(l.gather(first))
		case <-tick.C:
			l.settle(false)
		case <-l.closing:
			for { // what was accepted before Close is still written
				select {
				case first := <-l.queue:
					l.commit(l.gather(first))
				default:
					l.settle(true)
					return
				}
			}
		}
	}
}

// settle writes how often refusals repeated themselves: of those whose window is over, or of all.
func (l *Ledger) settle(all bool) {
	var batch []*item
	for _, e := range l.repeats.settle(all) {
		if data, err := e.encode(); err == nil {
			batch = append(batch, &item{data, make(chan error, 1)})
		}
	}
	l.commit(batch)
}

func (l *Ledger) gather(first *item) []*item {
	batch := []*item{first}
	for len(batch) < maxBatch {
		select {
		case i := <-l.queue:
			batch = append(batch, i)
		default:
			return batch
		}
	}
	return batch
}

// commit puts a batch on disk, and says so to those who wait for it.
func (l *Ledger) commit(batch []*item) {
	if len(batch) == 0 {
		return
	}
	entries := make([][]byte, len(batch))
	for i, it := range batch {
		entries[i] = it.data
	}
	err := l.journal.write(entries)
	if err != nil {
		err = fmt.Errorf("write to the ledger: %w", err)
	}
	for _, it := range batch {
		it.done <- err
	}
}

// Close writes what was accepted, waits until a checkpoint covers it, and closes the ledger.
func (l *Ledger) Close() error {
	if l == nil {
		return nil
	}
	var err error
	l.once.Do(func() {
		close(l.closing)
		l.journal.hurry()
		<-l.done
		l.journal.drain()
		<-l.sequenced
		err = errors.Join(l.stop(), l.journal.f.Close())
		l.cancel()
	})
	return err
}

// PublicKey returns the key that verifies the ledger's checkpoints (a verifier key of a signed note).
func (l *Ledger) PublicKey() string { return l.public }

// Reader returns a reader of the ledger.
func (l *Ledger) Reader() *Reader { return l.reader }

// Dir returns the folder that the ledger is in.
func (l *Ledger) Dir() string { return l.dir }
