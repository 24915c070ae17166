package authority

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
)

const (
	testUUID   = "4c4c4544-0042-3510-8058-b7c04f4e3433"
	testBootID = "f70dbf1d-1be5-45c6-ae4b-cb994cca44ae"
)

func TestMachineOf(t *testing.T) {
	one, two := strings.Repeat("1a", 32), strings.Repeat("2b", 32)
	for _, tt := range []struct {
		name  string
		facts map[string][]byte
		want  result.Machine
	}{
		{"none", nil, result.Machine{}},
		{"all", map[string][]byte{
			evidence.FactMachine: []byte(strings.ToUpper(testUUID) + "\n"), evidence.FactBootID: []byte(testBootID + "\n"),
			evidence.FactKubeletKeys: []byte(one + "\n" + two + "\n"),
		}, result.Machine{SystemUUID: testUUID, BootID: testBootID, KubeletKeys: []string{one, two}}},
		{"device tree", map[string][]byte{evidence.FactMachine: []byte("ibm,0312af\x00")}, result.Machine{}},
		{"device tree", map[string][]byte{evidence.FactMachine: []byte(testUUID + "\x00")}, result.Machine{SystemUUID: testUUID}},
		{"machine-id", map[string][]byte{evidence.FactMachine: []byte("0123456789abcdef0123456789abcdef\n")}, result.Machine{SystemUUID: "0123456789abcdef0123456789abcdef"}},
		{"hostile", map[string][]byte{
			evidence.FactMachine: []byte(testUUID + "\n" + testUUID), evidence.FactBootID: []byte(testUUID[1:]),
			evidence.FactKubeletKeys: []byte("x\n" + one[1:] + "\n\x1b[2J\n" + strings.Repeat(two+"\n", 9)),
		}, result.Machine{KubeletKeys: []string{two, two, two, two}}},
	} {
		if diff := cmp.Diff(tt.want, machineOf(tt.facts)); diff != "" {
			t.Errorf("machineOf(%s), want (-) and got (+):\n%s", tt.name, diff)
		}
	}
}

func FuzzMachineOf(f *testing.F) {
	f.Add([]byte(testUUID), []byte(testBootID), []byte(strings.Repeat("1a", 32)+"\n"))
	f.Fuzz(func(t *testing.T, uuid, boot, keys []byte) {
		m := machineOf(map[string][]byte{evidence.FactMachine: uuid, evidence.FactBootID: boot, evidence.FactKubeletKeys: keys})
		if len(m.SystemUUID) > 64 || len(m.BootID) > 36 || len(m.KubeletKeys) > maxKubeletKeys || strings.ContainsFunc(m.SystemUUID+m.BootID+strings.Join(m.KubeletKeys, ""), func(r rune) bool {
			return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z')
		}) {
			t.Errorf("machineOf(%q, %q, %q): got %+v", uuid, boot, keys, m)
		}
	})
}

// TestResultNamesMachine: the Result names TPM and machine also when the facts were left out, after a restart and after judging again.
func TestResultNamesMachine(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	m.facts[evidence.FactMachine], m.facts[evidence.FactBootID] = []byte(testUUID), []byte(testBootID)
	check := func(what, jwt, boot string) {
		t.Helper()
		r, err := result.Verify(jwt, w.jwks, result.Expectation{Node: "worker-1", Now: w.clock.Now()})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if want := (result.Machine{SystemUUID: testUUID, BootID: boot}); !cmp.Equal(want, r.Machine) || r.EKSHA256 != m.node().EKSHA256 {
			t.Errorf("%s: got machine %+v and EK %s, want %+v and %s", what, r.Machine, r.EKSHA256, want, m.node().EKSHA256)
		}
	}
	check("first", m.attest().Result, testBootID)
	if d := m.document(m.next); len(d.Facts) != 0 {
		t.Fatal("the second Evidence has its facts in it")
	}
	check("facts left out", m.attest().Result, testBootID)
	w.restart()
	m.connect()
	check("facts left out, after a restart", m.attest().Result, testBootID)

	w.judge = newJudge("two")
	if _, err := w.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	w.rejudgeAll(context.Background())
	signed, err := w.admin.Result(context.Background(), "worker-1")
	if err != nil {
		t.Fatal(err)
	}
	check("judged again", signed.Result, testBootID)
	other := strings.Replace(testBootID, "f", "e", 1)
	m.facts[evidence.FactBootID] = []byte(other)
	check("another boot", m.attest().Result, other)
	if n := m.node(); n.Trust != protocol.Trusted {
		t.Errorf("node: got %q, want it trusted", n.Trust)
	}
}
