package agent

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/protocol"
)

func TestIdentityIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if _, err := LoadIdentity(dir); !errors.Is(err, ErrNotEnrolled) {
		t.Errorf("LoadIdentity of nothing: got %v, want %v", err, ErrNotEnrolled)
	}
	from := time.Now().Truncate(time.Second).UTC()
	cert := testPEM(t, newTestKey(t), from, from.Add(3*time.Hour))
	want, err := newIdentity("https://a", &protocol.Enrolment{Node: "w", Certificate: cert, CA: cert}, from)
	if err != nil {
		t.Fatalf("newIdentity: %v", err)
	}
	if err := want.Save(dir); err != nil {
		t.Fatalf("Save: %v", err)
	}
	got, err := LoadIdentity(dir)
	if err != nil {
		t.Fatalf("LoadIdentity: %v", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("LoadIdentity (-want +got):\n%s", diff)
	}
	if at, err := got.renewAt(); err != nil || !at.Equal(from.Add(2*time.Hour)) {
		t.Errorf("renewAt: got %v, %v, want two thirds of the life time", at, err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("state folder: %d files, want 1: nothing half-written stays", len(files))
	}
	if info, err := os.Stat(filepath.Join(dir, enrolmentFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("enrolment: mode %v, %v, want 0600", info.Mode(), err)
	}
}

func TestLoadIdentityRefuses(t *testing.T) {
	for name, content := range map[string]string{
		"no JSON": "x", "no certificate": `{"node":"a"}`, "bad certificate": `{"certificate":"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, enrolmentFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadIdentity(dir); err == nil || !strings.Contains(err.Error(), "enrol again") {
			t.Errorf("LoadIdentity(%s): got %v, want what to do", name, err)
		}
	}
}

// A certificate that belongs to another TPM key must not be used: the TLS error that would follow says nothing.
func TestClientKeyOfAnotherTPM(t *testing.T) {
	now := time.Now()
	id := &Identity{Node: "w", Certificate: testPEM(t, newTestKey(t), now, now.Add(time.Hour))}
	if _, err := clientKey(id, newFakeTPM()); err == nil || !strings.Contains(err.Error(), "another TPM key") {
		t.Errorf("clientKey: got %v, want a refusal", err)
	}
}

func TestStatusFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "status.json")
	if _, err := LoadStatus(path); err == nil || !strings.Contains(err.Error(), "is trust-agent running") {
		t.Errorf("LoadStatus of nothing: got %v", err)
	}
	cfg := Defaults()
	r := Report{Node: "w", Time: time.Now().UTC(), Trigger: TriggerIMA, Err: errors.New("away")}
	if err := newStatus(&cfg, r).Save(path); err != nil {
		t.Fatalf("Save: %v", err)
	}
	got, err := LoadStatus(path)
	if err != nil || got.Error != "away" || got.Node != "w" || got.Trusted {
		t.Errorf("LoadStatus: got %+v, %v", got, err)
	}
}

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	notify("READY=1")
	b := make([]byte, 64)
	n, err := conn.Read(b)
	if err != nil || string(b[:n]) != "READY=1" {
		t.Errorf("notify: got %q, %v, want READY=1", b[:n], err)
	}
	t.Setenv("NOTIFY_SOCKET", path+"-gone")
	notify("READY=1") // must neither fail nor wait
}
