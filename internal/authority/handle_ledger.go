package authority

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"regexp"

	"touchstone.dev/touchstone/internal/ledger"
)

// tilePath are the files of a ledger below tile/ (C2SP tlog-tiles): hashes by level, or entries.
var tilePath = regexp.MustCompile(`^([0-9]|[1-5][0-9]|entries)(/x[0-9]{3}){0,5}/[0-9]{3}(\.p/[0-9]{1,3})?$`)

func (a *Authority) getLedgerKey(w http.ResponseWriter, _ *http.Request, _ identity) error {
	if a.ledger == nil {
		return ledger.ErrClosed
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err := w.Write([]byte(a.ledger.PublicKey() + "\n"))
	return ignoreGone(err)
}

func (a *Authority) getLedgerCheckpoint(w http.ResponseWriter, _ *http.Request, _ identity) error {
	return a.ledgerFile(w, "checkpoint", "text/plain; charset=utf-8")
}

func (a *Authority) getLedgerTile(w http.ResponseWriter, r *http.Request, _ identity) error {
	tile := r.PathValue("tile")
	if !tilePath.MatchString(tile) {
		return refuse(http.StatusNotFound, "not-found", "the ledger has no such tile", clip(tile, 80), "")
	}
	return a.ledgerFile(w, "tile/"+tile, "application/octet-stream")
}

// ledgerFile answers with a file of the ledger. Whoever reads it verifies it: AIAS adds nothing.
func (a *Authority) ledgerFile(w http.ResponseWriter, name, kind string) error {
	if a.ledger == nil {
		return ledger.ErrClosed
	}
	root, err := os.OpenRoot(a.ledger.Dir())
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // only read
	b, err := root.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return refuse(http.StatusNotFound, "not-found", "the ledger has no such tile", name, "")
	}
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", kind)
	_, err = w.Write(b) //nolint:gosec // plain text or octets, as the ledger's library wrote them
	return ignoreGone(err)
}
