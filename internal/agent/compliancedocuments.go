package agent

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"touchstone.dev/touchstone/internal/protocol"
)

// documentFiles are what oscap writes beside the results, by kind.
var documentFiles = map[string]string{protocol.DocumentARF: "arf.xml", protocol.DocumentHTML: "report.html"}

// keepFor says where the documents of the next scan go: to the folder of the configuration, or to one that is removed by what it returns, when AIAS
// wants them.
func (s *scanner) keepFor(w *scanWish) func() {
	s.keep = s.cfg.KeepDir
	if s.keep != "" || !w.documents {
		return func() {}
	}
	dir, err := os.MkdirTemp(filepath.Dir(s.state), "scan-")
	if err != nil {
		s.log.Warn("the documents of the compliance scan cannot be kept", "error", err)
		return func() {}
	}
	s.keep = dir
	return func() { _ = os.RemoveAll(dir) } // in the agent's own folder
}

// sendDocuments hands the documents of a scan to AIAS, before the scan itself, which ends what was asked for. The scan counts without them.
func (s *scanner) sendDocuments(ctx context.Context, w *scanWish) {
	for kind, name := range documentFiles {
		b, err := packDocument(filepath.Join(s.keep, name))
		if err == nil {
			err = w.link.SendScanDocument(ctx, kind, b)
		}
		if err != nil {
			s.log.Warn("a document of the compliance scan does not get to AIAS", "kind", kind, "error", err)
		}
	}
}

// packDocument reads and compresses a document, within limits.
func packDocument(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	n, err := io.Copy(z, io.LimitReader(f, protocol.MaxScanDocumentOpen+1))
	if err := errors.Join(err, z.Close()); err != nil {
		return nil, err
	}
	if n > protocol.MaxScanDocumentOpen || b.Len() > protocol.MaxScanDocument {
		return nil, fmt.Errorf("%d bytes, %d compressed, are too many: it is in keepDir, when there is one", n, b.Len())
	}
	return b.Bytes(), nil
}
