package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/swtpm/machine"
	"touchstone.dev/touchstone/test/boots"
)

// Options say how the demo runs.
type Options struct {
	Out   io.Writer // where the story is told
	Style render.Style
	Fast  bool // no pauses for reading
	Keep  bool // leave it running after the story, until ctx ends
	Log   *slog.Logger
}

// ErrStory means that a verdict was not the one that the story tells.
var ErrStory = errors.New("the demo did not go as it should")

// Step is one thing that was to happen.
type Step struct {
	Name   string  `json:"name"`
	Node   string  `json:"node,omitempty"`
	Want   string  `json:"want"`
	Got    string  `json:"got"`
	Millis float64 `json:"millis,omitempty"` // from the deed to the verdict
	OK     bool    `json:"ok"`
}

// Outcome is how the demo went.
type Outcome struct {
	OK    bool   `json:"ok"`
	Steps []Step `json:"steps"`
}

// workers are the names of the three workers.
var workers = []string{"worker-1", "worker-2", "worker-3"}

// EnvFolder names the environment variable that holds the folder of a demo that was left running.
const EnvFolder = "TOUCHSTONE_DEMO"

// stage is everything that runs during a demo.
type stage struct {
	*teller
	dir     string
	log     *slog.Logger
	aias    *aias
	feed    *feed
	workers []*worker
	good    *machine.Boot
	bad     *machine.Boot
}

// Run runs the demo until its end, or with Options.Keep until ctx ends. Everything that it started is stopped, and its folder removed, when
// it returns. The error wraps ErrStory when a verdict was another one than told.
func Run(ctx context.Context, o Options) (*Outcome, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	dir, err := os.MkdirTemp("", "touchstone-demo-")
	if err != nil {
		return nil, fmt.Errorf("make the folder of the demo: %w", err)
	}
	s := &stage{teller: newTeller(o), dir: dir, log: o.Log}
	defer s.clear()
	s.opening()
	for _, act := range []func(context.Context) error{s.prepare, s.enrol, s.unknownProgram, s.otherBoot, s.replayedQuote, s.repair} {
		if err := act(ctx); err != nil {
			return s.outcome(), err
		}
	}
	out := s.outcome()
	s.closing(out)
	if o.Keep && ctx.Err() == nil {
		s.invite()
		<-ctx.Done()
	}
	if !out.OK {
		return out, ErrStory
	}
	return out, nil
}

// clear stops everything and removes the folder.
func (s *stage) clear() {
	var stops errgroup.Group
	for _, w := range s.workers {
		stops.Go(w.close)
	}
	err := stops.Wait()
	if s.feed != nil {
		s.feed.close()
	}
	if s.aias != nil {
		err = errors.Join(err, s.aias.stop())
	}
	if err = errors.Join(err, os.RemoveAll(s.dir)); err != nil {
		s.log.Warn("the demo could not be cleared away", "error", err)
	}
}

// prepare makes the TPMs and AIAS.
func (s *stage) prepare(ctx context.Context) (err error) {
	if s.good, err = machine.Read(boots.Files, "corpus/good", false); err != nil {
		return err
	}
	if s.bad, err = tampered(); err != nil {
		return err
	}
	ekCA := filepath.Join(s.dir, "tpm-maker")
	for _, name := range workers {
		s.workers = append(s.workers, newWorker(s.dir, name, ekCA, s.log))
	}
	// The first one makes the maker's certificates; the others can be made side by side then.
	if err := s.workers[0].boot(ctx, s.good); err != nil {
		return err
	}
	var rest errgroup.Group
	for _, w := range s.workers[1:] {
		rest.Go(func() error { return w.boot(ctx, s.good) })
	}
	if err := rest.Wait(); err != nil {
		return err
	}
	events, entries := s.good.Counts()
	s.note("workers", fmt.Sprintf("3 TPMs made, a real boot in each: %d events, %d files", events, entries))
	if s.aias, err = startAIAS(ctx, filepath.Join(s.dir, "aias"), ekCA, s.log); err != nil {
		return err
	}
	s.note("AIAS", "CA made, references loaded, "+s.aias.server)
	s.feed, err = follow(ctx, s.aias.client)
	return err
}

// enrol starts the agents and waits until all workers are trusted.
func (s *stage) enrol(ctx context.Context) error {
	mark, start := s.feed.mark(), time.Now()
	for _, w := range s.workers {
		token, err := s.aias.token(ctx, w.Name)
		if err == nil {
			err = w.join(s.aias, token)
		}
		if err == nil {
			err = w.start(ctx)
		}
		if err != nil {
			return err
		}
	}
	s.note("workers", "enrol: EK certificate checked, credential opened by the TPM")
	for _, w := range s.workers {
		if _, err := s.expect(ctx, "enrol", w, mark, start, trusted); err != nil {
			return err
		}
	}
	return s.table(ctx)
}
