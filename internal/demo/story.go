package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/agent"
	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/protocol"
)

// wanted is the verdict that the story tells.
type wanted struct {
	trust string
	fail  []int  // the levels that must fail, and no others
	names string // what a finding must name
}

var trusted = wanted{trust: protocol.Trusted}

func (w wanted) String() string {
	if len(w.fail) == 0 {
		return w.trust
	}
	levels := strings.Trim(strings.Join(strings.Fields(fmt.Sprint(w.fail)), ", "), "[]")
	if len(w.fail) == 1 {
		return fmt.Sprintf("%s, level %s fails", w.trust, levels)
	}
	return fmt.Sprintf("%s, levels %s fail", w.trust, levels)
}

// expect waits for the next verdict on a worker and compares it with the story. The findings that cost trust are returned.
func (s *stage) expect(ctx context.Context, name string, w *worker, mark int, since time.Time, want wanted) ([]appraisal.Finding, error) {
	c, err := s.feed.await(ctx, w.Name, mark)
	if err != nil {
		return nil, errors.Join(err, w.failure())
	}
	v, err := s.verdict(ctx, w.Name)
	if err != nil {
		return nil, err
	}
	got := wanted{trust: c.To}
	var bad []appraisal.Finding
	for i := range v.Levels {
		l := &v.Levels[i]
		if l.Status == appraisal.Fail || l.Status == appraisal.Unknown {
			got.fail = append(got.fail, l.Level)
		}
		for _, f := range l.Findings {
			if f.Status == appraisal.Fail || f.Status == appraisal.Unknown {
				bad = append(bad, f)
			}
		}
	}
	named := want.names == "" || slices.ContainsFunc(bad, func(f appraisal.Finding) bool {
		return strings.Contains(f.Message+" "+f.Observed, want.names)
	})
	took := c.heard.Sub(since)
	step := Step{Name: name, Node: w.Name, Want: want.String(), Got: got.String(), Millis: float64(took.Microseconds()) / 1000}
	if !named {
		step.Got += ", without a word of " + want.names
	}
	step.OK = step.Got == step.Want
	s.record(step, took, c.To == protocol.Trusted)
	return bad, nil
}

// verdict asks AIAS for the whole verdict on a worker.
func (s *stage) verdict(ctx context.Context, node string) (*appraisal.Verdict, error) {
	r, err := s.aias.client.Why(ctx, node)
	if err != nil {
		return nil, err
	}
	v := &appraisal.Verdict{}
	if err := json.Unmarshal(r.Verdict, v); err != nil {
		return nil, fmt.Errorf("read the verdict on %s: %w", node, err)
	}
	return v, nil
}

// miner is what the intruder of the first act runs.
const miner = "/var/tmp/.x/xmrig"

// unknownProgram: an intruder runs a program that is in no reference.
func (s *stage) unknownProgram(ctx context.Context) error {
	w := s.workers[0]
	s.act(1, "A worker runs a program that nobody knows",
		w.Name+" starts "+miner+". Its kernel measures the file into the TPM before the first instruction runs, whoever starts it.")
	mark, start := s.feed.mark(), time.Now()
	if err := w.Execute(miner, []byte("a program that mines coins for somebody else")); err != nil {
		return err
	}
	findings, err := s.expect(ctx, "unknown program", w, mark, start, wanted{protocol.Untrusted, []int{5}, miner})
	if err != nil {
		return err
	}
	s.findings(findings)
	return s.table(ctx)
}

// otherBoot: somebody with a key to the rack reboots a worker as he likes.
func (s *stage) otherBoot(ctx context.Context) error {
	w := s.workers[1]
	s.act(2, "A worker boots with Secure Boot off and another command line",
		w.Name+" reboots. Somebody switched Secure Boot off in the firmware setup and put mitigations=off on the kernel command line.")
	if err := w.boot(ctx, s.bad); err != nil {
		return err
	}
	s.note(w.Name, "is up again; its agent starts")
	mark, start := s.feed.mark(), time.Now()
	if err := w.start(ctx); err != nil {
		return err
	}
	findings, err := s.expect(ctx, "other boot", w, mark, start, wanted{protocol.Untrusted, []int{2, 4}, "mitigations=off"})
	if err != nil {
		return err
	}
	s.findings(findings)
	return s.table(ctx)
}

// replayedQuote: an intruder owns a worker, and sends AIAS what the worker said when it was still good.
func (s *stage) replayedQuote(ctx context.Context) error {
	w := s.workers[2]
	s.act(3, "A worker replays an old quote",
		"An intruder owns "+w.Name+", stops its agent, and sends AIAS the good Evidence from before, byte by byte.")
	if err := w.halt(); err != nil {
		return err
	}
	old := w.sent()
	mark, start := s.feed.mark(), time.Now()
	err := w.impersonate(func(c *agent.Client) error {
		if err := s.replay(ctx, c, w, old); err != nil {
			return err
		}
		s.say("Then the intruder writes a fresh nonce over the old one. The quote inside still answers the old challenge: the TPM signed it.")
		mark, start = s.feed.mark(), time.Now()
		return paste(ctx, c, old)
	})
	if err != nil {
		return err
	}
	findings, err := s.expect(ctx, "pasted nonce", w, mark, start, wanted{protocol.Untrusted, []int{1, 2, 3, 4, 5}, ""})
	if err != nil {
		return err
	}
	s.findings(findings[:min(1, len(findings))]) // the same one stands on every level
	return s.table(ctx)
}

// replay sends old Evidence again, and records how it was refused.
func (s *stage) replay(ctx context.Context, c *agent.Client, w *worker, old []byte) error {
	start := time.Now()
	_, err := c.Attest(ctx, old)
	step := Step{Name: "replayed quote", Node: w.Name, Want: "refused as stale-challenge", Got: "accepted"}
	var r *agent.Refusal
	switch {
	case errors.As(err, &r):
		step.Got = "refused as " + r.Type[strings.LastIndex(r.Type, ":")+1:]
	case err != nil:
		return err
	}
	took := time.Since(start)
	step.OK, step.Millis = step.Got == step.Want, float64(took.Microseconds())/1000
	s.recordText(step, took, "AIAS refuses it")
	if r != nil {
		s.field("says", r.Title+": "+r.Detail)
	}
	return nil
}

// paste puts a fresh nonce into old Evidence and sends it.
func paste(ctx context.Context, c *agent.Client, old []byte) error {
	ch, err := c.Challenge(ctx)
	if err != nil {
		return err
	}
	doc, err := evidence.Decode(old)
	if err != nil {
		return err
	}
	doc.Nonce = ch.Nonce
	body, err := doc.Encode()
	if err != nil {
		return err
	}
	_, err = c.Attest(ctx, body)
	return err
}

// repair: the first worker is installed anew, the third gets its agent back.
func (s *stage) repair(ctx context.Context) error {
	first, third := s.workers[0], s.workers[2]
	s.act(4, "Two workers are repaired",
		first.Name+" is reinstalled and boots the approved software. "+third.Name+" gets its agent back: an honest quote over a fresh nonce is all it takes.")
	if err := first.boot(ctx, s.good); err != nil {
		return err
	}
	mark, start := s.feed.mark(), time.Now()
	for _, w := range []*worker{first, third} {
		if err := w.start(ctx); err != nil {
			return err
		}
	}
	for _, w := range []*worker{first, third} {
		if _, err := s.expect(ctx, "repair", w, mark, start, trusted); err != nil {
			return err
		}
	}
	return s.table(ctx)
}
