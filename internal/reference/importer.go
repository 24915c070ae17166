package reference

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"path/filepath"
	"sync"
	"time"
)

// ErrImport marks what an importer refuses: not the expected kind of file, damaged, or beyond the limits.
var ErrImport = errors.New("cannot import")

// Options tell an importer about what it reads. The zero value works, apart from Now.
type Options struct {
	File string    // name of the file that is imported; its folder is not kept
	Name string    // name of the source, where the file itself does not tell; the file's name if empty
	Note string    // remark of the person who imports
	Now  time.Time // date of the import

	// Size is the number of bytes to read, for Progress; 0 when unknown.
	Size int64
	// Progress is called now and then with the bytes read so far and Size. It may be nil.
	Progress func(done, total int64)
	// Warn is told what was left out and why, in one line. It may be nil.
	Warn func(message string)

	// ModuleKeys verify modules of a package that brings no kernel. Those inside a kernel of the package come on top.
	ModuleKeys []*x509.Certificate
	// SBATDate chooses one of several SBAT levels ("2025051000"); the newest if empty.
	SBATDate string
}

func (o *Options) warn(format string, args ...any) {
	if o.Warn != nil {
		o.Warn(fmt.Sprintf(format, args...))
	}
}

// serial lets one message through at a time: kernels are unpacked beside the stream.
func serial(warn func(string)) func(string) {
	if warn == nil {
		return nil
	}
	var mu sync.Mutex
	return func(message string) {
		mu.Lock()
		defer mu.Unlock()
		warn(message)
	}
}

// source starts a Source with its provenance. digest is that of what was imported.
func (o *Options) source(kind string, digest []byte) *Source {
	s := &Source{Kind: kind, Name: o.Name, File: filepath.Base(o.File), SHA256: hex.EncodeToString(digest), Imported: o.Now.UTC(), Note: o.Note}
	if o.File == "" {
		s.File = "-"
	}
	if s.Name == "" {
		s.Name = s.File
	}
	return s
}

// meter hashes and counts what passes through it.
type meter struct {
	r        io.Reader
	hash     hash.Hash
	done     int64
	told     int64
	total    int64
	progress func(done, total int64)
}

func newMeter(r io.Reader, o *Options) *meter {
	return &meter{r: r, hash: sha256.New(), total: o.Size, progress: o.Progress}
}

func (m *meter) Read(p []byte) (int, error) {
	const every = 256 << 10 // bytes between two reports
	n, err := m.r.Read(p)
	m.hash.Write(p[:n])
	m.done += int64(n)
	if m.progress != nil && (m.done-m.told >= every || err != nil) && m.done != m.told {
		m.told = m.done
		m.progress(m.done, m.total)
	}
	return n, err
}

// readWhole reads a small file as a whole, with its SHA-256.
func readWhole(r io.Reader, o *Options, limit int64) ([]byte, []byte, error) {
	m := newMeter(r, o)
	b, err := readAll(m, limit)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrImport, err)
	}
	return b, m.hash.Sum(nil), nil
}

func hexSHA256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func newCertificate(c *x509.Certificate) Certificate {
	return Certificate{Subject: c.Subject.String(), SHA256: hexSHA256(c.Raw), DER: c.Raw}
}
