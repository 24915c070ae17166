package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"touchstone.dev/touchstone/internal/audit/record"
)

// deliver hands an event out, unless it was before. e is the Coalescer's; at is where it lies in the log.
func (r *Reader) deliver(ctx context.Context, e *record.Event, from origin, at int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Records[0].Type.Origin() == record.OriginDaemon {
		r.daemon(ctx, e, at)
		return
	}
	now := time.Now()
	s, old, reset := r.epoch(e.ID, from)
	if from == fromLive && e.Partial && r.logOpen && len(r.held) < maxHeld && r.heldBytes < maxWaiting && !s.has(e.ID.Serial) {
		h := r.held[e.ID]
		h.parts = append(h.parts, e.Clone())
		r.heldBytes += size(e)
		if h.at.IsZero() {
			h.at, h.until = now, now.Add(r.cfg.Grace)
		}
		r.held[e.ID] = h
		return
	}
	if !s.add(e.ID.Serial, now) {
		// What ended too early (timeout) goes on as another part, if it was read in the same place.
		if fragment := r.fragments[e.ID] == from; !fragment {
			return
		}
	}
	if from == fromLog && len(r.held) > 0 {
		r.letGo(e.ID)
	}
	if e.Partial {
		if len(r.fragments) >= maxHeld {
			clear(r.fragments)
		}
		r.fragments[e.ID] = from
	}
	r.event(ctx, e.Clone(), now, mark{old: old, reset: reset, serial: e.ID.Serial})
}

// letGo forgets a held event, and returns its parts.
func (r *Reader) letGo(id record.ID) heldEvent {
	h := r.held[id]
	for _, e := range h.parts {
		r.heldBytes -= size(e)
	}
	delete(r.held, id)
	return h
}

// maxHeld bounds what is remembered of partial events.
const maxHeld = 4096

func (r *Reader) event(ctx context.Context, e *record.Event, at time.Time, done mark) {
	r.push(ctx, Item{Event: e, At: at, Own: r.isOwn(e), done: done})
}

// epoch returns the numbers of the boot that an event belongs to; reset: they begin anew with it.
func (r *Reader) epoch(id record.ID, from origin) (s *serials, old, reset bool) {
	if !id.Time().Before(r.bootTime.Add(-2 * time.Second)) {
		if last := r.current.last(); last > 1<<31 && id.Serial < last-1<<31 {
			r.current, reset = serials{}, true // the kernel's counter has 32 bits
		}
		return &r.current, false, reset
	}
	if last := r.previous.last(); from == fromLog && id.Serial+1000 < last && id.Time().After(r.lastOld.Time()) {
		r.previous, reset = serials{}, true // one boot before another
	}
	r.lastOld = id
	return &r.previous, true, reset
}

// daemon hands out what auditd wrote about itself, which is in the log only.
func (r *Reader) daemon(ctx context.Context, e *record.Event, at int64) {
	d := &daemon{ID: e.ID.String(), at: at}
	if r.skip[d.ID] {
		delete(r.skip, d.ID)
		r.push(ctx, Item{done: mark{daemon: d, only: true}})
		return
	}
	r.push(ctx, Item{Event: e.Clone(), done: mark{daemon: d}})
}

// isOwn reports whether the kernel tells of our own listening.
func (r *Reader) isOwn(e *record.Event) bool {
	l := e.Find(record.TypeEventListener)
	if l == nil {
		return false
	}
	pid, _ := l.Field("pid")
	return slices.Contains(r.own, string(pid))
}

func (r *Reader) overrun() {
	r.mu.Lock()
	r.overruns++
	r.mu.Unlock()
}

// malformed counts a line that is no record; tick tells of them.
func (r *Reader) malformed(line []byte) {
	r.mu.Lock()
	r.badLines++
	r.badText = fmt.Sprintf("%.80q", line)
	r.mu.Unlock()
}

// poll is how often the log is looked at. Beside multicast it only fills in.
func (r *Reader) poll() time.Duration {
	if r.messages.Load() == 0 {
		return 50 * time.Millisecond
	}
	return 250 * time.Millisecond
}

// follow reads the log until ctx ends.
func (r *Reader) follow(ctx context.Context, t *tail, begin *place, opened error) {
	defer t.close()
	c := record.NewCoalescer(record.Options{OpenBytes: maxWaiting, Malformed: func(line []byte, _ int64) { r.malformed(line) }})
	if !r.cfg.NoLive {
		c.Timeout = r.cfg.Grace * 3 / 4 // multicast has told of what has no end; here the whole is wanted
	}
	var at int64
	c.Emit = func(e *record.Event) { r.deliver(ctx, e, fromLog, at) }
	if !r.openLog(ctx, t, begin, opened) {
		return
	}
	c.Restart(t.position())
	buf := make([]byte, 256<<10)
	safe := int64(-1)
	for ctx.Err() == nil {
		n, changed, err := t.read(buf)
		at = t.position()
		if changed {
			c.Restart(t.position())
		}
		_, _ = c.Write(buf[:n])
		if s := c.Safe(); s != safe && t.file != nil {
			safe = s
			p := t.place(s)
			r.push(ctx, Item{done: mark{log: &p, safe: s, only: true}})
		}
		switch {
		case errors.Is(err, errRotated):
			r.push(ctx, Item{Gap: &Gap{Why: WhyRotated, AtLeast: true, Detail: err.Error() + " before it was read: see max_log_file and num_logs in auditd.conf"}})
		case errors.Is(err, io.EOF):
			c.Tick(time.Now())
			r.mu.Lock()
			r.caught = time.Now()
			r.mu.Unlock()
			sleep(ctx, r.poll())
		case err != nil:
			r.alarm(ctx, AlarmNoLog, err.Error())
			sleep(ctx, time.Second)
		}
	}
}

// openLog makes the best of how opening the log went, and tries until it works. False: ctx ended.
func (r *Reader) openLog(ctx context.Context, t *tail, begin *place, err error) bool {
	for told := false; ; {
		if errors.Is(err, errRotated) {
			r.push(ctx, Item{Gap: &Gap{Why: WhyRotated, AtLeast: true, Detail: "auditd's log does not reach back to what was read last"}})
			err = nil
		}
		r.mu.Lock()
		r.logOpen = err == nil
		r.mu.Unlock()
		if err == nil || ctx.Err() != nil {
			return err == nil
		}
		if !told {
			told = true
			r.alarm(ctx, AlarmNoLog, err.Error())
		}
		sleep(ctx, time.Second)
		if begin == nil {
			err = t.oldest() // what a log holds that appears now happened meanwhile
		} else {
			err = t.resume(*begin)
		}
	}
}

func (r *Reader) openOnce(t *tail, begin *place) error {
	switch {
	case begin != nil:
		return t.resume(*begin)
	case r.cfg.FromStart:
		return t.oldest()
	}
	return t.end()
}
