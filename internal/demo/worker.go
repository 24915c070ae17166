package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"touchstone.dev/touchstone/internal/agent"
	"touchstone.dev/touchstone/internal/swtpm/machine"
)

// worker is one captured machine, and the product's own agent on it.
type worker struct {
	*machine.Machine
	cfg agent.Config
	log *slog.Logger

	stop func() error // of the agent; nil when none runs
	ask  func()       // makes it attest at once, as SIGUSR1 does

	mu   sync.Mutex
	last []byte // the last Evidence that was sent
	err  error  // of the last attestation, or what ended the agent
}

// newWorker lays out the folder of a worker.
func newWorker(dir, name, ekCA string, log *slog.Logger) *worker {
	dir = filepath.Join(dir, name)
	w := &worker{Machine: machine.New(dir, name, ekCA), log: log.With("worker", name)}
	w.cfg = agent.Defaults()
	w.cfg.Node, w.cfg.HostRoot = name, w.Root
	w.cfg.StateDir, w.cfg.StatusFile = filepath.Join(dir, "state"), filepath.Join(dir, "status.json")
	w.cfg.TokenFile = filepath.Join(dir, "token")
	w.cfg.Watch.Interval = agent.Duration(100 * time.Millisecond)
	return w
}

// join gives the agent what it needs to enrol.
func (w *worker) join(a *aias, token string) error {
	w.cfg.Server, w.cfg.CAHash = a.server, a.caHash
	if err := os.WriteFile(w.cfg.TokenFile, []byte(token+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the join token: %w", err)
	}
	return nil
}

// boot boots the machine; its agent does not run afterwards.
func (w *worker) boot(ctx context.Context, b *machine.Boot) error {
	if err := w.halt(); err != nil {
		return err
	}
	return w.Boot(ctx, b)
}

// start starts the agent.
func (w *worker) start(ctx context.Context) error {
	w.cfg.TPM = w.Address()
	a, err := agent.New(w.cfg, agent.HostAt(w.Root), func() (agent.TPM, error) { return agent.OpenTPM(w.cfg.TPM) }, w.log)
	if err != nil {
		return fmt.Errorf("%s: %w", w.Name, err)
	}
	a.Tap = func(document []byte) {
		w.mu.Lock()
		w.last = document
		w.mu.Unlock()
	}
	a.Observe = func(r agent.Report) { w.keep(r.Err) }
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		err := a.Run(ctx)
		if err != nil {
			w.keep(err)
		}
		done <- err
	}()
	w.ask = a.Ask
	w.stop = func() error {
		cancel()
		return <-done
	}
	return nil
}

// halt stops the agent.
func (w *worker) halt() error {
	if w.stop == nil {
		return nil
	}
	err := w.stop()
	w.stop = nil
	return err
}

func (w *worker) keep(err error) {
	w.mu.Lock()
	w.err = err
	w.mu.Unlock()
}

// failure returns what went wrong last; nil when nothing did.
func (w *worker) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// sent returns the last Evidence that the agent sent.
func (w *worker) sent() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// close stops agent and TPM.
func (w *worker) close() error {
	return errors.Join(w.halt(), w.Close())
}

// impersonate speaks to AIAS as this worker, with its TPM: what an intruder with root on it can do.
func (w *worker) impersonate(fn func(*agent.Client) error) error {
	t, err := agent.OpenTPM(w.cfg.TPM)
	if err != nil {
		return fmt.Errorf("%s: %w", w.Name, err)
	}
	defer t.Close() //nolint:errcheck // nothing is buffered
	id, err := agent.LoadIdentity(w.cfg.StateDir)
	if err != nil {
		return fmt.Errorf("%s: %w", w.Name, err)
	}
	c, err := agent.Dial(&w.cfg, id, t)
	if err != nil {
		return fmt.Errorf("%s: %w", w.Name, err)
	}
	defer c.Close()
	return fn(c)
}
