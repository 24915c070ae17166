package eventlog

import (
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/tpm"
)

// corpus holds the logs of real boots that all of the project's tests share.
const corpus = "../../test/boots/corpus/"

// realLogs are the names of all logs of the corpus.
func realLogs(t testing.TB) []string {
	t.Helper()
	names, err := filepath.Glob(corpus + "*/eventlog.bin")
	if err != nil || len(names) == 0 {
		t.Fatalf("no logs in the corpus: %v", err)
	}
	return names
}

func readLog(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestReplayAgreesWithTPM2Tools runs the real tpm2_eventlog: it is the second opinion on every bank of every log.
func TestReplayAgreesWithTPM2Tools(t *testing.T) {
	tool, err := exec.LookPath("tpm2_eventlog")
	if err != nil {
		t.Fatalf("tpm2_eventlog is the oracle of this test, install tpm2-tools: %v", err)
	}
	for _, name := range realLogs(t) {
		t.Run(filepath.Base(filepath.Dir(name)), func(t *testing.T) {
			out, err := exec.Command(tool, name).Output()
			if err != nil {
				t.Fatalf("tpm2_eventlog %s: %v", name, err)
			}
			want := oraclePCRs(t, string(out))
			log, err := Parse(readLog(t, name))
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for _, a := range log.Algs {
				bank, err := log.Replay(a)
				if err != nil {
					t.Fatalf("Replay(%v): %v", a, err)
				}
				for i, v := range bank.Values {
					if v != nil {
						got[fmt.Sprintf("%v:%d", a, i)] = hex.EncodeToString(v)
					}
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("PCRs of %s (-tpm2_eventlog +ours):\n%s", name, d)
			}
		})
	}
}

var oracleLine = regexp.MustCompile(`^\s+(\d+)\s*: 0x([0-9a-f]+)$`)

// oraclePCRs reads the "pcrs:" part of what tpm2_eventlog prints: bank and index to value.
func oraclePCRs(t *testing.T, out string) map[string]string {
	t.Helper()
	_, tail, ok := strings.Cut(out, "\npcrs:\n")
	if !ok {
		t.Fatalf("tpm2_eventlog printed no pcrs:\n%s", out)
	}
	pcrs, bank := map[string]string{}, ""
	for line := range strings.Lines(tail) {
		line = strings.TrimRight(line, "\n")
		if m := oracleLine.FindStringSubmatch(line); m != nil {
			i, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			pcrs[fmt.Sprintf("%s:%d", bank, i)] = m[2]
			continue
		}
		a, err := tpm.ParseHashAlg(strings.Trim(line, " :"))
		if err != nil {
			t.Fatalf("unexpected line of tpm2_eventlog: %q", line)
		}
		bank = a.String()
	}
	if len(pcrs) == 0 {
		t.Fatal("tpm2_eventlog printed no PCR")
	}
	return pcrs
}
