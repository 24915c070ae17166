package rules

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/audit/record"
)

// Budget is what one key may cost before its rules are taken out for a while.
type Budget struct {
	Rate   int           // events a second, over Window
	Window time.Duration // how long a rate counts
	Out    time.Duration // how long rules stay out the first time; it doubles with each time in a row, up to MaxOut
	MaxOut time.Duration
}

// DefaultBudget is a tenth of what auditd can write on two cores: below it audit slows nobody down.
var DefaultBudget = Budget{Rate: 1000, Window: 5 * time.Second, Out: time.Minute, MaxOut: 10 * time.Minute}

// keyNarrowed is the key of the exclusions that a Governor makes. Install takes out those that an agent left behind.
const keyNarrowed = KeyPrefix + "narrowed"

// share is how many percent of a key's events one process must cause for it to be left out alone.
const share = 80

// Change says that a Governor changed the kernel's rules, or that it could not.
type Change struct {
	Key   string
	Out   bool   // the key's rules were taken out, or do not count for PID any more; else they are back
	PID   uint32 // the process that is left out alone; 0: all
	Rate  int    // events a second that led to it
	Until time.Time
	Err   error // the kernel's rules are as before
}

// String returns the change in words.
func (c Change) String() string {
	who := "the rules"
	if c.PID != 0 {
		who = fmt.Sprintf("process %d under the rules", c.PID)
	}
	switch {
	case c.Err != nil:
		return fmt.Sprintf("%s with key %s: %v", who, c.Key, c.Err)
	case !c.Out:
		return fmt.Sprintf("%s with key %s: audited again", who, c.Key)
	}
	return fmt.Sprintf("%s with key %s: %d events a second are more than the budget, not audited until %s", who, c.Key, c.Rate, c.Until.UTC().Format(time.TimeOnly))
}

// Governor keeps single keys within their budget: with a backlog that waits, whoever can cause events quickly slows the whole worker
// down; with one that does not, others' events are lost. It is for one goroutine.
type Governor struct {
	Ctl    Ctl
	Budget Budget
	keys   map[string]*usage
}

// usage is what a key cost in this window, and what was done about it.
type usage struct {
	since  time.Time
	events int
	pids   map[uint32]int
	out    bool
	pid    uint32
	until  time.Time
	times  int // in a row
	undo   [][]string
}

// usual is how many bytes a record has at most, usually. What has more counts as several events: arguments of a program may be megabytes.
const usual = 2048

// Limits of what is remembered.
const (
	maxKeys = 256
	maxPIDs = 4096
)

// Count takes note of an event.
func (g *Governor) Count(e *record.Event) {
	keys := e.Keys()
	if len(keys) == 0 {
		return
	}
	p, _ := e.Process()
	weight := 1
	for _, r := range e.Records {
		weight += (len(r.Body) + len(r.Enriched)) / usual
	}
	for _, key := range keys {
		u := g.keys[string(key)]
		if u == nil {
			if !strings.HasPrefix(string(key), KeyPrefix) || len(g.keys) >= maxKeys {
				continue // rules of others are not ours to take out
			}
			if g.keys == nil {
				g.keys = map[string]*usage{}
			}
			u = &usage{pids: map[uint32]int{}}
			g.keys[string(key)] = u
		}
		u.events += weight
		if _, ok := u.pids[p.PID]; ok || len(u.pids) < maxPIDs {
			u.pids[p.PID] += weight
		}
	}
}

// Tick compares with the budget and changes the kernel's rules. It is to be called every second or so, and returns what was changed.
func (g *Governor) Tick(ctx context.Context, now time.Time) []Change {
	var changes []Change
	for key, u := range g.keys {
		switch {
		case u.out && !now.Before(u.until):
			changes = append(changes, g.back(ctx, key, u))
		case !u.out && u.events > g.Budget.Rate*int(g.Budget.Window/time.Second):
			changes = append(changes, g.takeOut(ctx, key, u, now))
		case u.since.IsZero() || now.Sub(u.since) < g.Budget.Window && !now.Before(u.since):
			if u.since.IsZero() {
				u.since = now
			}
			continue
		case !u.out && now.Sub(u.until) > g.Budget.MaxOut:
			u.times = 0
		}
		u.since, u.events = now, 0
		clear(u.pids)
	}
	slices.SortFunc(changes, func(a, b Change) int { return strings.Compare(a.Key, b.Key) })
	return changes
}

// takeOut takes the rules of a key out, or leaves the one process out that causes nearly all of it.
func (g *Governor) takeOut(ctx context.Context, key string, u *usage, now time.Time) Change {
	took := g.Budget.Window
	if !u.since.IsZero() {
		took = max(now.Sub(u.since), time.Second)
	}
	c := Change{Key: key, Out: true, Rate: int(float64(u.events) / took.Seconds())}
	for pid, n := range u.pids {
		if n*100 >= u.events*share && pid != record.Unset {
			c.PID = pid
		}
	}
	out := min(g.Budget.Out<<min(u.times, 16), g.Budget.MaxOut)
	c.Until = now.Add(out)
	u.out, u.pid, u.until, u.undo = true, c.PID, c.Until, nil
	u.times++
	loaded, err := Loaded(ctx, g.Ctl)
	for _, r := range loaded {
		if r.Key != key || err != nil {
			continue
		}
		do, undo := r.without(), r.Args
		if c.PID != 0 {
			narrowed := r.exceptFor(c.PID)
			do, undo = narrowed.front(), narrowed.without()
		}
		if _, err = g.Ctl(ctx, do...); err == nil {
			u.undo = append(u.undo, undo)
		}
	}
	if err == nil && len(u.undo) == 0 {
		err = fmt.Errorf("no rule with this key is loaded")
	}
	c.Err = err
	return c
}

// back undoes what takeOut did.
func (g *Governor) back(ctx context.Context, key string, u *usage) Change {
	c := Change{Key: key, PID: u.pid}
	for _, args := range u.undo {
		if _, err := g.Ctl(ctx, args...); err != nil {
			c.Err = err
		}
	}
	u.out, u.undo = false, nil
	return c
}

// Close puts all rules back.
func (g *Governor) Close(ctx context.Context) []Change {
	var changes []Change
	for key, u := range g.keys {
		if u.out {
			changes = append(changes, g.back(ctx, key, u))
		}
	}
	return changes
}

// Out returns the keys whose rules are taken out or narrowed now: no drift.
func (g *Governor) Out() []string {
	var out []string
	for key, u := range g.keys {
		if u.out {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

// exceptFor returns the exclusion of one process from the rule.
func (r Rule) exceptFor(pid uint32) Rule {
	n := Rule{Key: keyNarrowed}
	for i := 0; i+1 < len(r.Args); i += 2 {
		flag, value := r.Args[i], r.Args[i+1]
		switch {
		case flag == "-w":
			kind := "path="
			if info, err := os.Stat(value); err == nil && info.IsDir() {
				kind = "dir="
			}
			n.Args = append(n.Args, "-a", "never,exit", "-F", kind+value)
		case flag == "-p":
			n.Args = append(n.Args, "-F", "perm="+value)
		case flag == "-k" || strings.HasPrefix(value, "key="):
		case flag == "-a" || flag == "-A":
			n.Args = append(n.Args, "-a", strings.Replace(value, "always", "never", 1))
		default:
			n.Args = append(n.Args, flag, value)
		}
	}
	n.Args = append(n.Args, "-F", fmt.Sprintf("pid=%d", pid), "-F", "key="+keyNarrowed)
	return n
}
