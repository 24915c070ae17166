package proof_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/audit/archive"
	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/audit/proof"
	"touchstone.dev/touchstone/internal/ledger"
	"touchstone.dev/touchstone/internal/protocol"
)

const node = "worker-1"

// place is an archive with its chain, and a ledger with some of the heads.
type place struct {
	t   *testing.T
	dir string
	opt archive.Options
	now time.Time
	at  chain.Position
	led *ledger.Ledger
	// bound is how many heads the ledger has.
	bound uint64
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{t: t, dir: t.TempDir(), now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), at: chain.Start(chain.ID{7})}
	p.opt = archive.Options{Dir: filepath.Join(p.dir, "audit"), Segment: 4 << 10, MaxBytes: 1 << 20, Now: func() time.Time { return p.now }}
	secret, public, err := ledger.NewKey()
	p.must(err)
	p.led, err = ledger.Open(context.Background(), filepath.Join(p.dir, "ledger"), secret, public)
	p.must(err)
	t.Cleanup(func() { _ = p.led.Close() })
	return p
}

func (p *place) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) archive(fn func(*archive.Node)) {
	p.t.Helper()
	a, err := archive.Open(p.opt)
	p.must(err)
	defer a.Close()
	n, err := a.Node(node)
	p.must(err)
	fn(n)
}

// fill adds batches of ten entries; after each fifth the TPM signs, and the ledger gets the head.
func (p *place) fill(batches int, text string, bind bool) {
	p.t.Helper()
	p.archive(func(n *archive.Node) {
		for i := range batches {
			b := &chain.Batch{Before: p.at}
			for range 10 {
				e := chain.Entry{Seq: p.at.Seq + 1, Time: p.now, Kind: chain.KindEvent, Body: fmt.Appendf(nil, "%s %d %s", text, p.at.Seq+1, noise(p.at.Seq))}
				raw, err := e.Append(nil)
				p.must(err)
				b.Entries, p.at = append(b.Entries, raw), p.at.After(raw)
			}
			p.now = p.now.Add(time.Minute)
			_, err := n.Append(b, time.Time{}, false)
			p.must(err)
			if i%5 < 4 || !bind {
				continue
			}
			p.must(n.Signed(&archive.Statement{Position: p.at, BootID: "b", Key: "k", ResetCount: 1}))
			s := n.Sealed()
			if s == nil || s.Seq != p.at.Seq {
				p.t.Fatalf("sealed: got %+v, want entry %d", s, p.at.Seq)
			}
			p.must(p.led.Append(context.Background(), ledger.Entry{Time: p.now, Kind: ledger.AuditHead, Node: node, Detail: map[string]string{proof.Detail: proof.Text(p.at)}}))
			p.bound++
		}
	})
}

// noise does not compress.
func noise(seq uint64) string {
	h := chain.Genesis(chain.ID{byte(seq), byte(seq >> 8)})
	return h.String()
}

// prove does what touchstone audit verify does.
func (p *place) prove() *proof.Proof {
	p.t.Helper()
	ctx := context.Background()
	r := p.led.Reader()
	cp, err := r.Checkpoint(ctx)
	p.must(err)
	for end := time.Now().Add(time.Minute); cp.Size < p.bound; { // entries are on disk before the checkpoint has them
		if time.Now().After(end) {
			p.t.Fatalf("the checkpoint has %d of %d entries", cp.Size, p.bound)
		}
		time.Sleep(10 * time.Millisecond)
		cp, err = r.Checkpoint(ctx)
		p.must(err)
	}
	p.must(r.Verify(ctx, cp, nil))
	var heads []proof.Head
	for e, err := range r.Entries(ctx, cp, 0) {
		p.must(err)
		at, err := proof.ParseText(e.Detail[proof.Detail])
		p.must(err)
		heads = append(heads, proof.Head{At: at, By: fmt.Sprintf("ledger entry %d has", e.Index), Time: e.Time})
	}
	var out *proof.Proof
	p.archive(func(n *archive.Node) {
		st := n.State()
		report := &protocol.AuditReport{At: proof.Ack(st.At)}
		if c := st.Cut; c.Chain != "" {
			report.Cut = &protocol.AuditAck{Chain: c.Chain, Seq: c.Seq, Head: c.Head}
		}
		out = proof.New(node, report, heads)
		p.must(n.Read(ctx, archive.Query{}, func(b *archive.Place) error {
			out.Batch(b.Received, b.Batch)
			return nil
		}))
		out.Finish()
	})
	return out
}

func (p *place) segments() []string {
	p.t.Helper()
	names, err := filepath.Glob(filepath.Join(p.opt.Dir, "n-"+node, "*.seg"))
	p.must(err)
	slices.Sort(names)
	if len(names) < 4 {
		p.t.Fatalf("segments: got %q, want some", names)
	}
	return names
}

// TestTampering: whatever somebody does to the folder of the archive, the ledger tells, and the place is named.
func TestTampering(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(*place)
		want string // fault; "": none
	}{
		"nothing":     {func(*place) {}, ""},
		"more events": {func(p *place) { p.fill(3, "event", false) }, ""},
		"a segment is dropped": {func(p *place) {
			p.must(os.Remove(p.segments()[1]))
		}, "are missing"},
		"the first segment is dropped": {func(p *place) {
			p.must(os.Remove(p.segments()[0]))
		}, "no cut of the archive accounts for them"},
		"the tail is cut off": {func(p *place) {
			s := p.segments()
			p.must(os.Remove(s[len(s)-1]))
		}, "are missing or on their way"},
		"a segment is cut off": {func(p *place) {
			s := p.segments()
			info, err := os.Stat(s[len(s)-1])
			p.must(err)
			p.must(os.Truncate(s[len(s)-1], info.Size()-10))
		}, "are missing or on their way"},
		"a byte is changed": {func(p *place) {
			s := p.segments()[1]
			b, err := os.ReadFile(s)
			p.must(err)
			b[len(b)/2] ^= 1
			p.must(os.WriteFile(s, b, 0o600))
		}, "are missing"},
		"the tail is replaced": {func(p *place) {
			p.rewrite(300)
		}, "entries 301 to 350 are not what they were"},
		"all of it is written anew": {func(p *place) {
			p.rewrite(0)
		}, "entries 1 to 50 are not what they were"},
		"all of it is removed": {func(p *place) {
			p.must(os.RemoveAll(p.opt.Dir))
		}, "it is not here"},
		"another chain is put in its place": {func(p *place) {
			p.must(os.RemoveAll(p.opt.Dir))
			p.at = chain.Start(chain.ID{8})
			p.fill(40, "event", false)
		}, "it is not here"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.fill(40, "event", true)
			c.do(p)
			got := p.prove()
			if c.want == "" {
				if len(got.Faults) > 0 || got.Heads != 8 || got.Entries != p.at.Seq || got.Older > 0 {
					t.Errorf("got %d entries through %d heads, faults %q; want %d through 8, none", got.Entries, got.Heads, got.Faults, p.at.Seq)
				}
				return
			}
			if !slices.ContainsFunc(got.Faults, func(f string) bool { return strings.Contains(f, c.want) }) {
				t.Errorf("faults: got %q, want %q among them", got.Faults, c.want)
			}
		})
	}
}

// rewrite makes the archive anew with other entries after a number, as somebody with all rights on AIAS would.
func (p *place) rewrite(after uint64) {
	p.t.Helper()
	var kept []*chain.Batch
	p.archive(func(n *archive.Node) {
		p.must(n.Read(context.Background(), archive.Query{}, func(b *archive.Place) error {
			if b.Batch.Before.Seq < after {
				kept = append(kept, b.Batch)
			}
			return nil
		}))
	})
	p.must(os.RemoveAll(p.opt.Dir))
	end := p.at.Seq
	p.at = chain.Start(chain.ID{7})
	p.archive(func(n *archive.Node) {
		for _, b := range kept {
			b.Entries = b.Entries[:min(uint64(len(b.Entries)), after-b.Before.Seq)]
			_, err := n.Append(b, time.Time{}, false)
			p.must(err)
			p.at, err = b.End()
			p.must(err)
		}
	})
	p.fill(int(end-p.at.Seq)/10, "forged", false)
}

// TestRetention: heads of entries that the archive removed for their age are no fault; a cut that the ledger contradicts is one.
func TestRetention(t *testing.T) {
	p := newPlace(t)
	p.opt.MaxBytes = 24 << 10
	p.fill(100, "event", true)
	got := p.prove()
	if len(got.Faults) > 0 || got.Older == 0 || got.Heads == 0 || got.Older+got.Heads != 20 || got.From.Seq == 0 {
		t.Errorf("got %d heads and %d older, from entry %d, faults %q; want both of 20 in all", got.Heads, got.Older, got.From.Seq+1, got.Faults)
	}
}

func TestParseText(t *testing.T) {
	at := chain.Position{Chain: chain.ID{1, 2}, Seq: 17, Head: chain.Head{3}}
	if got, err := proof.ParseText(proof.Text(at)); err != nil || got != at {
		t.Errorf("ParseText(Text(%v)): got %v, %v", at, got, err)
	}
	for _, bad := range []string{"", "chain x entry 1 head y", "chain 00 entry 1 head 00", strings.Replace(proof.Text(at), "17", "-1", 1), proof.Text(at) + " x"} {
		if got, err := proof.ParseText(bad); err == nil {
			t.Errorf("ParseText(%q): got %v, want an error", bad, got)
		}
	}
}
