package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/runtimeconf"
)

// TestProviderWatch: what is missing is written, what is wrong is said, and said once.
func TestProviderWatch(t *testing.T) {
	w := providerWatch{providerFlags: providerFlags{runtime: runtimeCRIO, root: t.TempDir(), socket: "/run/trust-agent/keyprovider.sock"}}
	look := func() string {
		var out strings.Builder
		w.look(t.Context(), &out, w.socket)
		return out.String()
	}
	if got := look(); !strings.Contains(got, "does trust-agent run") || !strings.Contains(got, "install --runtime cri-o") {
		t.Errorf("look() at a host that is not set up: got %q", got)
	}
	w.install = true
	if got := look(); !strings.Contains(got, "wrote "+runtimeconf.CRIOFile) || !strings.Contains(got, "systemctl daemon-reload") || strings.Contains(got, "install --runtime cri-o") {
		t.Errorf("look() with install: got %q", got)
	}
	if _, err := os.Stat(filepath.Join(w.root, runtimeconf.CRIODropIn)); err != nil {
		t.Error(err)
	}
	if got := look(); got != "" {
		t.Errorf("look() once more: got %q, want nothing new", got)
	}
	w.runtime, w.cri = runtimeContainerd, filepath.Join(w.root, "containerd.sock")
	if got := look(); !strings.Contains(got, "ask the container runtime for its version") {
		t.Errorf("look() without a runtime: got %q", got)
	}
}
