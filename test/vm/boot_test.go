//go:build vm

package vm

import (
	"context"
	"testing"
)

// openLab opens the lab for a test.
func openLab(t *testing.T) *Lab {
	t.Helper()
	l, err := Open(t.Context(), Config{Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// newMachine makes a machine that ends with the test; a test that failed shows its console.
func newMachine(t *testing.T, l *Lab, o Options) *Machine {
	t.Helper()
	m, err := l.NewMachine(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console of %s:\n%s", m.Name(), m.Console())
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func start(ctx context.Context, t *testing.T, m *Machine) *Guest {
	t.Helper()
	g, err := m.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestGoodBoot(t *testing.T) {
	l := openLab(t)
	m := newMachine(t, l, Options{Name: "good"})
	g := start(t.Context(), t, m)
	log, err := g.ReadFile(t.Context(), EventLogPath)
	t.Logf("event log %d bytes, %v; kernels %q", len(log), err, l.Kernels())
}
