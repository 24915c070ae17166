package authority

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/nbde"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
)

// clevis runs a script of Debian's clevis; what it reads is in.
func clevis(t testing.TB, in, script string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath("clevis-luks-bind"); err != nil {
		t.Fatalf("%v: scripts/need test installs it", err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", append([]string{"-c", script, "test"}, args...)...)
	var out, said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &out, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", script, err, said.String())
	}
	return out.String(), nil
}

// disks serves clevis, and returns the URL.
func (w *world) disks() string {
	w.t.Helper()
	s := httptest.NewServer(w.DiskHandler())
	w.t.Cleanup(s.Close)
	return s.URL
}

// bindDisk lets a node bind, and returns the configuration of clevis for it.
func (w *world) bindDisk(url, node string, p protocol.DiskPolicy) string {
	w.t.Helper()
	ctx := context.Background()
	if _, err := w.admin.BindDisk(ctx, node, p); err != nil {
		w.t.Fatal(err)
	}
	all, err := w.admin.Disks(ctx)
	if err != nil || len(all.Signers) != 1 {
		w.t.Fatalf("Disks(): got %+v, %v; want one signer", all, err)
	}
	return fmt.Sprintf(`{"url":"%s/n/%s","thp":"%s"}`, url, node, all.Signers[0])
}

// disk is the disks of a node as an operator sees them.
func (w *world) disk(node string) protocol.Disk {
	w.t.Helper()
	all, err := w.admin.Disks(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, d := range all.Nodes {
		if d.Node == node {
			return d
		}
	}
	w.t.Fatalf("Disks(): no %s", node)
	return protocol.Disk{}
}

// TestDiskOfAWorkerThatIsUp: what is bound on a worker that attested a moment before can be tried at once.
func TestDiskOfAWorkerThatIsUp(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	m.attest()
	config := w.bindDisk(w.disks(), "worker-1", protocol.DiskPolicy{Mode: "attested"})
	jwe, err := clevis(t, "secret", `clevis encrypt tang "$1"`, config)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := clevis(t, jwe, "clevis decrypt"); err != nil || got != "secret" {
		t.Errorf("clevis decrypt: got %q, %v; an operator sees %+v", got, err, w.disk("worker-1").Last)
	}
	w.clock.Advance(time.Hour) // its verdict is over
	config = w.bindDisk(w.disks(), "worker-1", protocol.DiskPolicy{Mode: "attested"})
	if jwe, err = clevis(t, "secret", `clevis encrypt tang "$1"`, config); err != nil {
		t.Fatal(err)
	}
	if got, err := clevis(t, jwe, "clevis decrypt"); err == nil {
		t.Errorf("clevis decrypt, without a verdict: got %q", got)
	}
}

// TestDiskFollowsTheVerdict: unmodified clevis is refused until the node attests in this boot, and again after it fell.
func TestDiskFollowsTheVerdict(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	config := w.bindDisk(w.disks(), "worker-1", protocol.DiskPolicy{Mode: "attested", Lease: "1m"})
	jwe, err := clevis(t, "secret", `clevis encrypt tang "$1"`, config)
	if err != nil {
		t.Fatal(err)
	}
	want := func(when string, reason string) {
		t.Helper()
		got, err := clevis(t, jwe, "clevis decrypt")
		if ok := err == nil && got == "secret"; ok != (reason == "") {
			t.Errorf("%s: clevis decrypt: got %q, %v; want %q", when, got, err, reason)
		}
		d := w.disk("worker-1")
		if d.Last == nil || d.Last.Released != (reason == "") || !strings.Contains(d.Last.Reason, reason) {
			t.Errorf("%s: an operator sees %+v, want %q", when, d.Last, reason)
		}
	}
	want("before the first attestation", "has not attested")
	m.attest()
	want("attested while binding", "")
	w.clock.Advance(16 * time.Minute)
	m.again()
	want("long up", "has been up since")
	w.clock.Advance(2 * time.Minute)
	m.clock.ResetCount++
	want("rebooted", "too long ago")
	// The node's own agent attests while clevis repeats.
	var wg sync.WaitGroup
	wg.Go(func() {
		time.Sleep(time.Second)
		m.again()
	})
	if _, err := clevis(t, "", `for try in {1..40}; do printf %s "$1" | clevis decrypt && exit; sleep 0.5; done; exit 1`, jwe); err != nil {
		t.Errorf("clevis repeats until the node has attested: %v", err)
	}
	wg.Wait()
	want("attested in this boot", "")
	w.clock.Advance(2 * time.Minute)
	want("the lease is over", "too long ago")
	m.list = append(m.list, "miner"...)
	m.attest()
	want("fallen", "level 5 is fail (unknown program miner")
	if _, err := w.admin.ActOnDisk(context.Background(), "worker-1", protocol.DiskApprove, protocol.DiskAct{Seconds: 60, Reason: "rescue"}); err != nil {
		t.Fatal(err)
	}
	want("approved", "")
	want("approved once", "level 5")
}

// TestDiskOfAnotherNode: a trusted node that uses the prefix of another one is refused.
func TestDiskOfAnotherNode(t *testing.T) {
	w := newWorld(t)
	url := w.disks()
	a, b := w.enrolled("a"), w.enrolled("b")
	config := w.bindDisk(url, "a", protocol.DiskPolicy{Mode: "attested"})
	w.bindDisk(url, "b", protocol.DiskPolicy{Mode: "attested"})
	a.attest()
	jwe, err := clevis(t, "secret", `clevis encrypt tang "$1"`, config)
	if err != nil {
		t.Fatal(err)
	}
	// The binding of a is over, and b has a lease of its own, at the same address.
	w.clock.Advance(16 * time.Minute)
	b.again()
	kid := w.disk("a").Keys[0].Thumbprint
	for prefix, status := range map[string]int{"/n/a": http.StatusForbidden, "/n/b": http.StatusNotFound, "/n/c": http.StatusNotFound, "": http.StatusNotFound} {
		if got := post(t, url+prefix+"/rec/"+kid, point(t)); got != status {
			t.Errorf("POST %s/rec/KID-OF-a: got %d, want %d", prefix, got, status)
		}
	}
	if jwe == "" {
		t.Error("clevis encrypt gave nothing")
	}
}

// again attests with a challenge that is fresh, as an agent does that was away.
func (m *machine) again() {
	m.w.t.Helper()
	if err := m.w.call(m.http, http.MethodGet, protocol.PathChallenge, nil, &m.next); err != nil {
		m.w.t.Error(err)
		return
	}
	m.attest()
}

// point is the body of a recovery: the public half of a fresh key.
func point(t testing.TB) []byte {
	t.Helper()
	k, err := nbde.NewKey(nbde.P256)
	if err != nil {
		t.Fatal(err)
	}
	b, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]any{}
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	delete(m, "d")
	b, _ = json.Marshal(m)
	return b
}

func post(t testing.TB, url string, body []byte) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// TestDiskLastKnown: in mode node the last verdict counts while the node is off, within its age; a fall counts for as long.
func TestDiskLastKnown(t *testing.T) {
	w := newWorld(t)
	url := w.disks()
	m := w.enrolled("a")
	w.bindDisk(url, "a", protocol.DiskPolicy{Mode: "node", Conditions: []byte(`{"levels":[1,2,3,4,5],"maxResultAge":"12h"}`)})
	ask := func(when string, want int) {
		t.Helper()
		if got := post(t, url+"/n/a/rec/"+w.disk("a").Keys[0].Thumbprint, point(t)); got != want {
			t.Errorf("%s: got %d, want %d (%s)", when, got, want, w.disk("a").Why)
		}
	}
	ask("never attested", http.StatusForbidden)
	m.attest()
	ask("trusted", http.StatusOK)
	w.restart()
	url = w.disks()
	m.connect()
	ask("AIAS restarted", http.StatusOK)
	w.clock.Advance(2 * time.Hour)
	if err := w.expire(context.Background(), w.node("a")); err != nil {
		t.Fatal(err)
	}
	ask("off for two hours", http.StatusOK)
	w.clock.Advance(11 * time.Hour)
	ask("off for too long", http.StatusForbidden)
	m.list = append(m.list, "miner"...)
	m.again()
	ask("fallen", http.StatusForbidden)
	w.clock.Advance(time.Hour)
	if err := w.expire(context.Background(), w.node("a")); err != nil {
		t.Fatal(err)
	}
	ask("fallen, and off since", http.StatusForbidden)
	if err := w.admin.Delete(context.Background(), "a"); err != nil {
		t.Fatal(err)
	}
	ask("removed", http.StatusForbidden)
}

// TestDiskAPIRefuses: what makes no sense is refused with words, and changes nothing.
func TestDiskAPIRefuses(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.bindDisk(w.disks(), "a", protocol.DiskPolicy{Mode: "node"})
	bind := func(p protocol.DiskPolicy) error { _, err := w.admin.BindDisk(ctx, "b", p); return err }
	on := func(node, what string, r protocol.DiskAct) error {
		_, err := w.admin.ActOnDisk(ctx, node, what, r)
		return err
	}
	wantProblem(t, "mode", bind(protocol.DiskPolicy{Mode: "open"}), http.StatusConflict, "disks")
	wantProblem(t, "conditions", bind(protocol.DiskPolicy{Mode: "node", Conditions: []byte(`{"level":[1]}`)}), http.StatusBadRequest, "disks")
	wantProblem(t, "lease", bind(protocol.DiskPolicy{Mode: "attested", Lease: "soon"}), http.StatusBadRequest, "disks")
	wantProblem(t, "act on nothing", on("b", protocol.DiskRevoke, protocol.DiskAct{}), http.StatusNotFound, "no-disks")
	wantProblem(t, "unknown act", on("a", "open", protocol.DiskAct{}), http.StatusNotFound, "not-found")
	wantProblem(t, "not revoked", on("a", protocol.DiskUnrevoke, protocol.DiskAct{}), http.StatusConflict, "disks")
	wantProblem(t, "approval without a time", on("a", protocol.DiskApprove, protocol.DiskAct{}), http.StatusConflict, "disks")
	wantProblem(t, "approval for a name", on("a", protocol.DiskApprove, protocol.DiskAct{Seconds: 60, Source: "host"}), http.StatusBadRequest, "disks")
	wantProblem(t, "year-long window", on("a", protocol.DiskMaintain, protocol.DiskAct{Seconds: 365 * 24 * 3600}), http.StatusBadRequest, "disks")
	if _, err := w.admin.RotateDiskKeys(ctx, "all"); err == nil {
		t.Error("RotateDiskKeys(all): got no error")
	}
	if all, err := w.admin.Disks(ctx); err != nil || len(all.Nodes) != 1 {
		t.Errorf("Disks(): got %+v, %v; want a alone", all, err)
	}
	for _, what := range []string{protocol.DiskRevoke, protocol.DiskUnrevoke, protocol.DiskRotate} {
		if err := on("a", what, protocol.DiskAct{Reason: "test"}); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := w.admin.DestroyDisk(ctx, "a"); err != nil {
		t.Error(err)
	}
	wantProblem(t, "destroyed", w.admin.DestroyDisk(ctx, "a"), http.StatusNotFound, "no-disks")
	acts, err := w.admin.Acts(ctx, 10)
	if err != nil || len(acts) < 5 || acts[0].Act != "disk.destroy" || acts[0].Operator != "tester" {
		t.Errorf("Acts(): got %+v, %v; want what was done, with who did it", acts, err)
	}
}

// TestServeAnswersClevis: the service listens for clevis beside its own API, and ends both.
func TestServeAnswersClevis(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	w := newWorld(t, func(w *world) { w.cfg.Disks.Listen, w.cfg.Disks.Open = address, true })
	ctx, stop := context.WithCancel(t.Context())
	if l, err = new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- w.Serve(ctx, l) }()
	jwe := ""
	for deadline := time.Now().Add(20 * time.Second); jwe == "" && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		jwe, err = clevis(t, "secret", `clevis encrypt tang '{"url":"http://'"$1"'"}' -y`, address)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, err := clevis(t, jwe, "clevis decrypt"); err != nil || got != "secret" {
		t.Errorf("clevis decrypt: got %q, %v", got, err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Serve(): %v", err)
	}
	if _, err := new(net.Dialer).DialContext(t.Context(), "tcp", address); err == nil {
		t.Error("after the end: the address for clevis still answers")
	}
	if _, err := os.Stat(filepath.Join(w.cfg.Data, "aias.db")); err != nil {
		t.Error(err)
	}
}

// TestEscrow: over the API, with two operators.
func TestEscrow(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	b, err := w.Operator("second")
	if err != nil {
		t.Fatal(err)
	}
	second, err := operator.New(*b)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if _, err := w.admin.Deposit(ctx, "a", "v1", []byte("correct horse")); err != nil {
		t.Fatal(err)
	}
	step := func(c *operator.Client, what string) (*protocol.Escrow, error) {
		return c.Escrow(ctx, "a", "v1", what, map[bool]string{true: "drill"}[what == protocol.EscrowAsk])
	}
	_, err = step(w.admin, protocol.EscrowTake)
	wantProblem(t, "take without asking", err, http.StatusConflict, "escrow")
	if _, err := step(w.admin, protocol.EscrowAsk); err != nil {
		t.Fatal(err)
	}
	_, err = step(w.admin, protocol.EscrowConfirm)
	wantProblem(t, "confirm one's own", err, http.StatusConflict, "escrow")
	if _, err := step(second, protocol.EscrowConfirm); err != nil {
		t.Fatal(err)
	}
	_, err = step(second, protocol.EscrowTake)
	wantProblem(t, "take another's", err, http.StatusConflict, "escrow")
	e, err := step(w.admin, protocol.EscrowTake)
	if err != nil || string(e.Passphrase) != "correct horse" || e.TakenBy != "tester, confirmed by second" {
		t.Errorf("take: got %+v, %v", e, err)
	}
	_, err = step(w.admin, "open")
	wantProblem(t, "unknown step", err, http.StatusNotFound, "not-found")
	_, err = w.admin.Escrow(ctx, "a", "v2", protocol.EscrowTake, "")
	wantProblem(t, "unknown volume", err, http.StatusNotFound, "no-escrow")
	if _, err := w.admin.Deposit(ctx, "A", "v1", []byte("x")); err == nil {
		t.Error("Deposit() for what is no node name: got no error")
	}
	all, err := w.admin.Escrows(ctx)
	if err != nil || len(all) != 1 || all[0].Passphrase != nil || all[0].TakenBy == "" {
		t.Errorf("Escrows(): got %+v, %v", all, err)
	}
	if err := w.admin.RemoveEscrow(ctx, "a", "v1"); err != nil {
		t.Error(err)
	}
}
