package ledger

import "time"

// Health is how the tree keeps up with the journal. While the tree cannot be written, entries wait in the journal, and who appends goes on until that is full.
type Health struct {
	Waiting  int           // entries on disk that the tree does not have yet
	Behind   time.Duration // since the tree took an entry last, or since the first one waits; 0: it has all
	Used     float64       // of the journal, 0 to 1; from 1 on those who append wait
	Failures uint64        // batches that the tree did not take, since the ledger was opened
	Err      error         // why it did not take the last one; nil: it did
}

// standing is what the journal knows of the tree, under its lock.
type standing struct {
	since    time.Time
	failures uint64
	err      error
}

// told takes what became of a batch of which the tree has some entries now.
func (j *journal) told(now time.Time, some bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.tree.err = err; err != nil {
		j.tree.failures++
	}
	if some {
		j.tree.since = now
	}
}

// Health tells how the ledger is. That of a nil Ledger is the zero Health.
func (l *Ledger) Health() Health {
	if l == nil {
		return Health{}
	}
	j := l.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	h := Health{
		Waiting: len(j.waiting), Used: min(1, max(float64(j.size)/maxJournal, float64(len(j.waiting))/maxWaiting)),
		Failures: j.tree.failures, Err: j.tree.err,
	}
	if h.Waiting > 0 {
		h.Behind = max(0, time.Since(j.tree.since))
	}
	return h
}
