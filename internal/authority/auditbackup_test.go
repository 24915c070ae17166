package authority

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"touchstone.dev/touchstone/internal/audit/archive"
	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/protocol"
)

// restoredFrom is an AIAS on an empty machine, made from a backup. prepare may put something into its data folder before.
func restoredFrom(t *testing.T, data []byte, id age.Identity, prepare func(dir string)) *world {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Data = filepath.Join(t.TempDir(), "aias")
	if prepare != nil {
		prepare(cfg.Data)
	}
	if _, err := Restore(t.Context(), cfg, bytes.NewReader(data), time.Now(), id); err != nil {
		t.Fatal(err)
	}
	return newWorld(t, func(w *world) { w.cfg.Data = cfg.Data })
}

// TestRestoreKeepsAuditChains: after a restore on an empty machine the chains of workers go on; what they had sent since the backup is a hole with that
// reason, and no alarm. Any other hole is one.
func TestRestoreKeepsAuditChains(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	s, quiet := w.chained("worker-1"), w.chained("worker-2")
	for _, c := range []*chained{s, quiet} {
		if _, err := c.send(c.batch(3, "event"), ""); err != nil {
			t.Fatal(err)
		}
		if got := c.claim(); got.State != claims.AuditEqual {
			t.Fatalf("before the backup: %+v", got)
		}
	}
	var data bytes.Buffer
	if err := w.Backup(t.Context(), &data, id.Recipient()); err != nil {
		t.Fatal(err)
	}
	then := s.at
	if _, err := s.send(s.batch(4, "event"), ""); err != nil {
		t.Fatal(err)
	}
	if got := s.claim(); got.State != claims.AuditEqual {
		t.Fatalf("after the backup: %+v", got)
	}
	old := w.cfg.Data

	w = restoredFrom(t, data.Bytes(), id, nil)
	for _, c := range []*chained{s, quiet} {
		c.m.w = w
		c.m.connect()
		var at protocol.AuditAck
		if err := w.call(c.m.http, http.MethodGet, protocol.PathAudit, nil, &at); err != nil || at.Seq != 3 || at.Chain != c.at.Chain.String() {
			t.Errorf("%s is at %+v, %v after a restore, want entry 3", c.m.name, at, err)
		}
	}
	// Who sent nothing since goes on as if nothing had been.
	if _, err := quiet.send(quiet.batch(2, "event"), ""); err != nil {
		t.Fatal(err)
	}
	if got := quiet.claim(); got.State != claims.AuditEqual {
		t.Errorf("worker-2, which sent nothing since the backup: %+v", got)
	}
	// Who did has let go of it.
	gone := s.at
	next := s.batch(2, "event")
	wantProblem(t, "a batch behind the hole", second(s.send(next, "")), http.StatusConflict, "audit-behind")
	if _, err := s.send(next, "?lost=1"); err != nil {
		t.Fatal(err)
	}
	if got := s.claim(); got.State != claims.AuditEqual {
		t.Errorf("worker-1, after the restore: %+v", got)
	}
	findings := func() []archive.Finding {
		f, err := w.audit.archive.Node("worker-1")
		if err != nil {
			t.Fatal(err)
		}
		return f.State().Findings
	}
	if f := findings(); len(f) != 1 || f[0].Kind != archive.Hole || f[0].Seq != then.Seq+1 || f[0].Last != gone.Seq || f[0].By != "aias restore" || !strings.Contains(f[0].Observed, "restored from a backup") {
		t.Errorf("findings: got %+v, want the hole from 4 to 7, explained by the restore", f)
	}
	s.batch(3, "event")
	if _, err := s.send(s.batch(1, "event"), "?lost=1"); err != nil {
		t.Fatal(err)
	}
	if got := s.claim(); got.State != claims.AuditHole {
		t.Errorf("a hole that no restore explains: %+v", got)
	}

	// With a copy of the folder nothing is missing.
	w = restoredFrom(t, data.Bytes(), id, func(dir string) {
		if err := os.CopyFS(filepath.Join(dir, auditFolder), os.DirFS(filepath.Join(old, auditFolder))); err != nil {
			t.Fatal(err)
		}
	})
	s.m.w, s.at = w, gone
	s.m.connect()
	if _, err := s.send(s.batch(1, "event"), ""); err != nil {
		t.Errorf("with a copy of the archive: %v", err)
	}
	if f := findings(); len(f) != 0 {
		t.Errorf("findings with a copy of the archive: %+v", f)
	}
	forged := &chained{m: s.m, at: chain.Start(s.at.Chain)}
	wantProblem(t, "another past after a restore", second(forged.send(forged.batch(9, "forged"), "")), http.StatusConflict, "audit-fork")
}
