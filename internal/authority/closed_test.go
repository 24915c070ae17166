package authority

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
)

// brokenDisk is a Store whose writes can be made to fail.
type brokenDisk struct {
	store.Store
	broken atomic.Bool
}

var errFull = errors.New("database or disk is full (13)")

func (b *brokenDisk) Save(ctx context.Context, u *store.Update) (int64, error) {
	if b.broken.Load() {
		return 0, errFull
	}
	return b.Store.Save(ctx, u)
}

func (b *brokenDisk) Ping(ctx context.Context) error {
	if b.broken.Load() {
		return errFull
	}
	return b.Store.Ping(ctx)
}

// TestFullDisk: when nothing can be written no verdict moves up, trust ends on time all the same, readiness tells, and afterwards all goes on.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	m, fallen := w.enrolled("worker-1"), w.enrolled("worker-2")
	m.attest()
	fallen.list = []byte("miner;")
	fallen.attest()
	disk := &brokenDisk{Store: w.store}
	w.Authority.store = disk
	disk.broken.Store(true)
	ctx := context.Background()
	_, err := m.send(m.document(m.next))
	wantProblem(t, "evidence on a full disk", err, http.StatusInternalServerError, "internal")
	fallen.clock.ResetCount, fallen.list = fallen.clock.ResetCount+1, []byte("boot_aggregate;")
	if _, err := fallen.send(fallen.document(fallen.next)); err == nil || fallen.node().Trust != protocol.Untrusted {
		t.Errorf("recovery on a full disk: got %v and %q, want an error and untrusted", err, fallen.node().Trust)
	}
	var p *protocol.Problem
	if err := w.admin.Ready(ctx); !errors.As(err, &p) || p.Status != http.StatusServiceUnavailable {
		t.Errorf("Ready() on a full disk: got %v, want 503", err)
	}
	w.clock.Advance(testLifetime)
	w.expireDue(ctx)
	if n := m.node(); n.Trust != protocol.Untrusted || n.Levels[0].Status != "unknown" {
		t.Errorf("node whose expiry cannot be written: got %q, want untrusted", n.Trust)
	}
	disk.broken.Store(false)
	w.clock.Advance(2 * time.Second)
	w.expireDue(ctx)
	if changes, err := w.admin.History(ctx, "worker-1", 1, 0); err != nil || changes[0].Cause != protocol.CauseExpiry {
		t.Errorf("history with room again: got %+v, %v; want the expiry", changes, err)
	}
	if a := m.attest(); !a.Trusted { // the challenge was not used up
		t.Errorf("evidence with room again: got %+v, want trusted", a)
	}
}

// TestClockGoesBack: no challenge works twice because the clock was set back, and honest nodes go on.
func TestClockGoesBack(t *testing.T) {
	start := time.Now()
	for _, tt := range []struct {
		name    string
		at, now time.Time
		want    bool
	}{
		{"before", start.Add(time.Minute), start, false},
		{"after", start.Add(time.Minute), start.Add(time.Minute), true},
		{"by the wall clock alone", start.Add(time.Minute), start.Round(0).Add(2 * time.Minute), true}, // as after a sleep of the machine
		{"loaded from the store", start.Add(time.Minute).Round(0), start.Add(2 * time.Minute), true},
	} {
		if got := over(tt.at, tt.now); got != tt.want {
			t.Errorf("over(%s): got %v, want %v", tt.name, got, tt.want)
		}
	}
	w := newWorld(t)
	m := w.enrolled("worker-1")
	used := m.next
	m.attest()
	w.clock.Advance(-time.Hour)
	_, err := m.send(m.document(used))
	wantProblem(t, "used challenge after the clock was set back", err, http.StatusConflict, "stale-challenge")
	for range 3 {
		if a := m.attest(); !a.Trusted {
			t.Errorf("attestation after the clock was set back: got %+v, want trusted", a)
		}
	}
}

// TestDamagedCheckpoint: what somebody changed or broke in the database costs the node a whole attestation, and AIAS nothing.
func TestDamagedCheckpoint(t *testing.T) {
	for name, query := range map[string]string{
		"garbage":        `UPDATE states SET checkpoint = x'ff00ff'`,
		"gone":           `UPDATE states SET checkpoint = NULL`,
		"list lost":      `DELETE FROM ima`,
		"logs lost":      `DELETE FROM blobs`,
		"evidence lost":  `DELETE FROM evidence`,
		"evidence empty": `UPDATE evidence SET document = x''`,
		"verdict lost":   `DELETE FROM verdicts`,
		"logs changed":   `UPDATE blobs SET data = x'00'`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			m, other := w.enrolled("worker-1"), w.enrolled("worker-2")
			m.attest()
			w.damage(query + map[bool]string{true: ` WHERE node = 1`}[name != "logs lost" && name != "logs changed"])
			w.restart()
			m.connect()
			other.connect()
			d := m.document(m.next)
			if _, err := m.send(d); err != nil {
				p := wantProblem(t, "evidence after damage", err, http.StatusConflict, "resume")
				if a, err := m.send(m.document(*p.Challenge)); err != nil || !a.Trusted {
					t.Errorf("whole evidence: got %+v, %v; want trusted", a, err)
				}
			}
			if a := other.attest(); !a.Trusted {
				t.Errorf("another node: got %+v, want trusted", a)
			}
		})
	}
}

// TestStreamThatNobodyReads: a client that opens streams of events and does not read keeps nobody from anything.
func TestStreamThatNobodyReads(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	b, err := w.Operator("lazy")
	if err != nil {
		t.Fatal(err)
	}
	tr := operatorHTTP(t, w, b).Transport.(*http.Transport)
	for range 20 {
		c, err := tls.Dial("tcp", w.Authority.cfg.Address, tr.TLSClientConfig)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a\r\nLast-Event-ID: 0\r\n\r\n", protocol.PathEvents)
	}
	w.node("worker-1").changes.SetBurst(1e6)
	for i := range 40 {
		m.clock.ResetCount++
		m.list = fmt.Appendf(nil, "boot_aggregate;%s", map[bool]string{true: "miner;"}[i%2 == 0])
		m.attest()
	}
}

// TestMetricsDoNotGrowWithNames: no label is of a node's choosing.
func TestMetricsDoNotGrowWithNames(t *testing.T) {
	w := newWorld(t)
	series := func() int {
		families, err := w.metrics.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, f := range families {
			n += len(f.GetMetric())
		}
		return n
	}
	ask := func(i int) {
		_ = w.call(w.client(), http.MethodGet, fmt.Sprintf("/v1/none-%d", i), nil, nil)
		_ = w.call(w.client(), http.MethodPost, protocol.PathEnrol, &protocol.EnrolRequest{Node: fmt.Sprintf("worker-%d", i)}, nil)
		_ = w.call(w.client(), http.MethodGet, fmt.Sprintf("/v1/nodes/%d", i), nil, nil)
	}
	ask(0)
	before := series()
	for i := range 20 {
		ask(i)
	}
	if got := series(); got != before {
		t.Errorf("series after other names: got %d, want %d", got, before)
	}
}
