package authority

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
)

// Documents of scans lie in a folder of the data folder, one file for each node and kind: the newest. They are as the node sent them, are not looked
// into, and are no part of a backup.
const (
	documentFolder = "scans"
	maxDocuments   = 1 << 30 // bytes of all; the oldest go first
	documentTemp   = "new-"
	tempAge        = time.Hour // then an upload that did not end is removed
)

var documentKinds = []string{protocol.DocumentARF, protocol.DocumentHTML}

func (a *Authority) documentFile(node int64, kind string) string {
	return filepath.Join(a.cfg.Data, documentFolder, strconv.FormatInt(node, 10)+"."+kind+".gz")
}

// putScanDocument takes a document of a scan from the node that makes it, when an operator asked for it.
func (a *Authority) putScanDocument(w http.ResponseWriter, r *http.Request, id identity) error {
	n, err := a.nodeOf(id)
	if err != nil {
		return err
	}
	kind, size := r.PathValue("kind"), r.ContentLength
	switch ask := n.scanAsk.Load(); {
	case !n.limit.Allow():
		return tooMany(w, "this node sends too much")
	case !slices.Contains(documentKinds, kind):
		return refuse(http.StatusNotFound, "not-found", "there is no such document of a scan", clip(kind, 40), "arf and html are kept")
	case ask == nil || !ask.documents:
		return refuse(http.StatusConflict, "not-asked", "nobody asked for documents of a scan", "", "send the scan alone")
	case r.Header.Get("Content-Type") != protocol.MediaTypeScanDocument:
		return refuse(http.StatusUnsupportedMediaType, "media-type", "documents of scans are "+protocol.MediaTypeScanDocument, "", "set the Content-Type")
	case size < 0:
		return refuse(http.StatusLengthRequired, "length", "the length of the document must be known", "", "set the Content-Length")
	case size > protocol.MaxScanDocument:
		return &http.MaxBytesError{Limit: protocol.MaxScanDocument}
	}
	defer n.bodies.Add(-1)
	if n.bodies.Add(1) > nodeBodies {
		return tooMany(w, "this node sends too much at the same time")
	}
	ctx, cancel := context.WithTimeout(r.Context(), handleTime)
	defer cancel()
	if err := n.lock(ctx); err != nil {
		return err
	}
	good := !n.attested.IsZero() && !over(n.expires, a.now())
	n.unlock()
	if !good {
		return refuse(http.StatusForbidden, "not-attested", "the node has no valid attestation", "", "attest first")
	}
	if err := a.keepDocument(n.id, kind, http.MaxBytesReader(w, r.Body, size), size); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// keepDocument writes a document whole or not at all, and makes room for it.
func (a *Authority) keepDocument(node int64, kind string, from io.Reader, size int64) (err error) {
	dir := filepath.Join(a.cfg.Data, documentFolder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := a.documentRoom(dir, size); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, documentTemp)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	n, err := io.Copy(f, from)
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		_ = f.Close()
		return refuse(http.StatusBadRequest, "malformed-request", "the document did not arrive whole", err.Error(), "try again")
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), a.documentFile(node, kind))
}

// documentRoom removes the oldest documents until there is room for one more, and what uploads left behind.
func (a *Authority) documentRoom(dir string, size int64) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var all []fs.FileInfo
	total := size
	for _, e := range entries {
		st, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if filepath.Ext(e.Name()) != ".gz" && time.Since(st.ModTime()) < tempAge { // on its way
			total += st.Size()
			continue
		}
		if filepath.Ext(e.Name()) != ".gz" {
			_ = os.Remove(filepath.Join(dir, e.Name()))
			continue
		}
		all, total = append(all, st), total+st.Size()
	}
	slices.SortFunc(all, func(x, y fs.FileInfo) int {
		return cmp.Or(x.ModTime().Compare(y.ModTime()), cmp.Compare(x.Name(), y.Name()))
	})
	for _, st := range all {
		if total <= maxDocuments {
			break
		}
		if err := os.Remove(filepath.Join(dir, st.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		total -= st.Size()
	}
	return nil
}

// scanDocuments lists what is kept of a node.
func (a *Authority) scanDocuments(node int64) []protocol.ScanDocument {
	var out []protocol.ScanDocument
	for _, kind := range documentKinds {
		if st, err := os.Stat(a.documentFile(node, kind)); err == nil {
			out = append(out, protocol.ScanDocument{Kind: kind, Bytes: st.Size(), Received: st.ModTime().UTC().Truncate(time.Second)})
		}
	}
	return out
}

func (a *Authority) dropScanDocuments(node int64) {
	for _, kind := range documentKinds {
		if err := os.Remove(a.documentFile(node, kind)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			a.log.Error("a document of a removed node is still there", "err", err)
		}
	}
}

// getScanDocument hands out a document as the node sent it.
func (a *Authority) getScanDocument(w http.ResponseWriter, r *http.Request, _ identity) error {
	n, err := a.target(r)
	if err != nil {
		return err
	}
	kind := r.PathValue("kind")
	none := refuse(http.StatusNotFound, "no-document", "AIAS keeps no such document of the node", clip(kind, 40), fmt.Sprintf("ask for it with a scan: touchstone compliance scan %s --documents", n.name))
	if !slices.Contains(documentKinds, kind) {
		return none
	}
	f, err := os.Open(a.documentFile(n.id, kind))
	if errors.Is(err, fs.ErrNotExist) {
		return none
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	st, err := f.Stat()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", protocol.MediaTypeScanDocument)
	w.Header().Set("Content-Length", strconv.FormatInt(st.Size(), 10))
	_, err = io.Copy(w, f)
	return ignoreGone(err)
}
