package authority

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
)

// sendDocument sends a document of a scan as a node does.
func (m *machine) sendDocument(kind string, body []byte, change func(*http.Request)) error {
	m.w.t.Helper()
	req, err := http.NewRequestWithContext(m.w.t.Context(), http.MethodPut, m.w.url+strings.Replace(protocol.PathScanDocument, "{kind}", kind, 1), bytes.NewReader(body))
	if err != nil {
		m.w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", protocol.MediaTypeScanDocument)
	if change != nil {
		change(req)
	}
	return m.w.send(m.http, req, nil)
}

// TestScanDocuments: documents are taken from the node that was asked for them, while it was, and handed to operators as they came.
func TestScanDocuments(t *testing.T) {
	w := scanWorld(t)
	m := w.enrolled("worker-1")
	doc := []byte("compressed")
	wantProblem(t, "nobody asked", m.sendDocument("arf", doc, nil), http.StatusConflict, "not-asked")
	if ask, err := w.admin.AskScan(t.Context(), "worker-1", true); err != nil || !ask.Documents {
		t.Fatalf("AskScan: %+v, %v", ask, err)
	}
	if ask, err := w.admin.AskScan(t.Context(), "worker-1", false); err != nil || !ask.Documents {
		t.Fatalf("AskScan again, without: %+v, %v; want that documents are still wanted", ask, err)
	}
	wantProblem(t, "not attested", m.sendDocument("arf", doc, nil), http.StatusForbidden, "not-attested")
	w.restart()
	m.connect()
	a, err := m.send(m.quoted(m.next, m.booted("good")))
	if err != nil || !a.Next.ScanDocuments {
		t.Fatalf("challenge after a restart: %+v, %v; want documents", a, err)
	}
	wantProblem(t, "another kind", m.sendDocument("exe", doc, nil), http.StatusNotFound, "not-found")
	wantProblem(t, "another type", m.sendDocument("arf", doc, func(r *http.Request) { r.Header.Set("Content-Type", "text/html") }), http.StatusUnsupportedMediaType, "media-type")
	wantProblem(t, "no length", m.sendDocument("arf", doc, func(r *http.Request) { r.ContentLength = -1 }), http.StatusLengthRequired, "length")
	wantProblem(t, "too large", m.sendDocument("arf", make([]byte, protocol.MaxScanDocument+1), nil), http.StatusRequestEntityTooLarge, "too-large")
	for _, b := range [][]byte{[]byte("older"), doc} {
		if err := m.sendDocument("arf", b, nil); err != nil {
			t.Fatal(err)
		}
	}
	r := m.scanOf(w.clock.Now())
	r.Asked = a.Next.Scan
	if _, err := m.report(r); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, "it was answered", m.sendDocument("arf", doc, nil), http.StatusConflict, "not-asked")
	got, err := w.admin.ScanDocument(t.Context(), "worker-1", "arf")
	c, errShow := w.admin.Compliance(t.Context(), "worker-1")
	if err != nil || errShow != nil || !bytes.Equal(got, doc) || len(c.Documents) != 1 || c.Documents[0].Kind != "arf" {
		t.Errorf("ScanDocument: got %q, %v; kept: %+v, %v", got, err, c.Documents, errShow)
	}
	_, err = w.admin.ScanDocument(t.Context(), "worker-1", "html")
	wantProblem(t, "none was sent", err, http.StatusNotFound, "no-document")
	_, err = w.admin.ScanDocument(t.Context(), "worker-1", "../1.arf")
	wantProblem(t, "no kind", err, http.StatusNotFound, "no-document")
	if err := w.admin.Delete(t.Context(), "worker-1"); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(w.cfg.Data, documentFolder, "*")); len(left) > 0 {
		t.Errorf("documents of a removed node: %q", left)
	}
}

// TestDocumentRoom: the oldest documents make room, and what an upload left behind goes.
func TestDocumentRoom(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	for i, name := range []string{"1.arf.gz", "2.arf.gz", "3.html.gz", documentTemp + "old", documentTemp + "now"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, maxDocuments/3); err != nil {
			t.Fatal(err)
		}
		if at := time.Now().Add(time.Duration(i-10) * time.Hour); name != documentTemp+"now" {
			if err := os.Chtimes(path, at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.documentRoom(dir, 100); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := []string{"3.html.gz", documentTemp + "now"}; err != nil || !slices.Equal(left, want) {
		t.Errorf("left: got %q, %v; want %q", left, err, want)
	}
}
