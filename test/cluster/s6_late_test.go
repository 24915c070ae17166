//go:build cluster

package cluster

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// late: a key opens no image on a worker whose result is older than the key's conditions allow, however trusted the worker is.
func (s *sealed) late(t *testing.T, w *Worker) {
	ctx := t.Context()
	must(t, s.pushPlain(ctx, "ebb"))
	// No answer comes within a microsecond of the result that it is about: this is a worker that is always late.
	must(t, writeFiles(s.dir, map[string][]byte{"ebb.json": []byte(`{"softwareTPM":"Allow","maxResultAge":"1us"}`)}))
	p := s.stray(t, "ebb", w, s.encrypt(t, "ebb", "--conditions", filepath.Join(s.dir, "ebb.json")))
	event, err := s.event(ctx, p.Namespace, p.Name, "is not for "+w.Name, "its result is older than 1µs")
	must(t, err)
	s.logf("S6 refused: ... %s", event[max(0, len(event)-250):])
	must(t, s.inLedger(ctx, w, "its result is older than 1µs"))
}

// inLedger looks for a refusal to a worker in the ledger.
func (s *world) inLedger(ctx context.Context, w *Worker, reason string) error {
	return until(ctx, "the refusal is in the ledger", podTime, nil, func(ctx context.Context) error {
		list, err := s.InAIAS(ctx, nil, "touchstone", "ledger", "show", "--node", w.Name, "--kind", "key-refused")
		if err == nil && !strings.Contains(string(list), reason) {
			err = fmt.Errorf("it has %s", list)
		}
		return err
	})
}
