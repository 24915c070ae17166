package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/fleet"
)

func TestBenchFleetUsage(t *testing.T) {
	t.Setenv("TOUCHSTONE_OPERATOR", "")
	bundle := filepath.Join(t.TempDir(), "operator.json")
	if err := os.WriteFile(bundle, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--nodes", "0"}, ExitUnreadable, "0 nodes"},
		{[]string{"--duration", "1h"}, ExitUnreadable, "at most 10m"},
		{[]string{"more"}, ExitUnreadable, "--help"},
		{[]string{"--server", "https://127.0.0.1:1"}, ExitNotTrusted, "needs the operator bundle"},
		{[]string{"--server", "https://192.0.2.1:1", "--operator", bundle}, ExitNotTrusted, "not on this machine"},
		{[]string{"--server", "https://127.0.0.1:1", "--operator", bundle + "x"}, ExitNotTrusted, "read the operator bundle"},
		{[]string{"--aias", bundle}, ExitNotTrusted, "start AIAS"},
	} {
		code, _, errOut := run(t, append([]string{"bench", "fleet"}, tc.args...)...)
		if code != tc.code || !strings.Contains(errOut, tc.want) {
			t.Errorf("bench fleet %q: got exit code %d and %q, want %d and %q", tc.args, code, errOut, tc.code, tc.want)
		}
	}
}

func TestDrawFleet(t *testing.T) {
	var b bytes.Buffer
	drawFleet(&b, &fleet.Report{
		Nodes: 1000, Connections: 900, InFlight: 32, Attestations: 5000, Trusted: 4998, Errors: map[string]int{"connection": 1, "not trusted": 2}, Opened: 10, Resumed: 9,
		Steady: fleet.Costs{Seconds: 2, PerSecond: 2500, AIASMicros: 320, GeneratorMicros: 130, AIASCores: 0.8, GeneratorCores: 0.325},
		Memory: fleet.Memory{Enrolled: fleet.MemoryPoint{Live: 5 << 20, RSS: 50 << 20}, PerNode: 4608, PerConnection: 28 << 10, PerNodeAfter: 9 << 10},
	})
	for _, want := range []string{
		"1000 workers, 900 connections", "2500 a second: 5000 in 2.0 s, 4998 trusted", "1 failed: connection", "2 failed: not trusted", "10 opened, 9 of them",
		"AIAS 320 us", "5.0 MiB with all", "50.0 MiB", "4.5 KiB a worker, 28.0 KiB more", "9.0 KiB a worker in all",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("drawFleet: got\n%s\nwant %q in it", b.String(), want)
		}
	}
}
