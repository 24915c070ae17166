package source

import (
	"context"
	"fmt"
	"time"
)

// deafAfter is how long after joining the group the kernel's record of it may take.
const deafAfter = 5 * time.Second

// watch asks the kernel how audit is every second, and gives up on what has been missing for too long.
func (r *Reader) watch(ctx context.Context) {
	var before *Status
	var told time.Time
	failed := ""
	overruns := uint64(0)
	begin, deaf := time.Now(), r.cfg.NoLive
	for ctx.Err() == nil {
		now, err := Ask()
		switch {
		case err != nil && err.Error() != failed:
			failed = err.Error()
			r.push(ctx, Item{Status: &Status{Alarms: []Alarm{AlarmNoStatus}, Err: failed}})
		case err == nil:
			failed = ""
			r.mu.Lock()
			now.Overruns = r.overruns
			r.mu.Unlock()
			now.Alarms = compare(before, &now)
			if len(now.Alarms) > 0 || time.Since(told) >= r.cfg.Status {
				told = time.Now()
				s := now
				r.push(ctx, Item{Status: &s})
			}
			if before != nil && now.Lost != before.Lost {
				r.push(ctx, Item{Gap: &Gap{Why: WhyKernel, Records: true, Events: uint64(now.Lost - before.Lost), Counter: uint64(now.Lost),
					Detail: "the kernel's backlog was full, or nobody took the records: see backlog_limit and backlog_wait_time"}})
			}
			if before == nil {
				deaf = deaf || now.Enabled == 0 // then the kernel does not tell of our listening
			}
			before = &now
		}
		if !deaf && r.messages.Load() == 0 && time.Since(begin) > deafAfter {
			deaf = true
			r.alarm(ctx, AlarmNoLive, "nothing comes by multicast, not even word of our own listening: the kernel sends to the host's network namespace only (hostNetwork)")
		}
		overruns = r.tick(ctx, overruns)
		sleep(ctx, time.Second)
	}
}

// alarm tells of something that the kernel does not, together with what it says.
func (r *Reader) alarm(ctx context.Context, a Alarm, text string) {
	s, err := Ask()
	if err != nil {
		s = Status{} // AlarmNoStatus tells of that
	}
	s.Alarms, s.Err = []Alarm{a}, text
	r.push(ctx, Item{Status: &s})
}

// tick gives up on what has been missing for too long: held partial events, holes in the numbers, lines that are no records.
func (r *Reader) tick(ctx context.Context, overruns uint64) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for id, h := range r.held {
		if now.Before(h.until) {
			continue
		}
		r.letGo(id)
		s, old, reset := r.epoch(id, fromLive)
		if !s.add(id.Serial, h.at) {
			continue
		}
		for _, e := range h.parts {
			r.event(ctx, e, h.at, mark{old: old, reset: reset, serial: id.Serial})
		}
	}
	late := now.Add(-r.cfg.Grace)
	if r.logOpen && r.caught.Before(now) {
		late = r.caught.Add(-r.cfg.Grace)
	}
	r.holes(ctx, &r.current, false, late)
	r.holes(ctx, &r.previous, true, late)
	if r.badLines > 0 {
		r.push(ctx, Item{Gap: &Gap{Why: WhyOther, Events: r.badLines, Records: true, Detail: "lines that are no audit records, the last: " + r.badText}})
		r.badLines = 0
	}
	if r.overruns > overruns && !r.logOpen {
		r.push(ctx, Item{Gap: &Gap{Why: WhyOverrun, AtLeast: true, Detail: fmt.Sprintf("the multicast socket was full %d times, and there is no log", r.overruns-overruns)}})
	}
	return r.overruns
}

// holes gives those that are overdue as gaps, but for numbers whose events are held.
func (r *Reader) holes(ctx context.Context, s *serials, old bool, late time.Time) {
	for n := 0; n < maxNamed; n++ {
		h, ok := s.overdue(late)
		if !ok {
			return
		}
		s.name(h)
		hole := h
		r.push(ctx, Item{Gap: &Gap{Why: WhySerial, Events: h.Last - h.First + 1, First: h.First, Last: h.Last,

			Detail: "neither multicast nor the log has these numbers"}, done: mark{old: old, hole: &hole}})
	}
}
