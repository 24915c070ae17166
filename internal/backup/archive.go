package backup

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
)

// Names of members.
const (
	headName   = "backup.json"
	KeyName    = "key"
	Database   = "aias.db"
	Checkpoint = "ledger/checkpoint"
	Entries    = "ledger/"     // and a number of ten digits
	References = "references/" // and a path
	Audit      = "audit/"      // and the folder of a node
	endName    = "end.json"
)

// Limits of a member, in bytes.
const (
	maxSmall     = 64 << 10
	maxBundle    = 256 * (2 + 1<<16)
	maxReference = 1 << 30
	maxAudit     = 1 << 20
	maxDatabase  = 1 << 42
	maxPath      = 512
	maxMembers   = 1 << 26
)

// format is that of the backups that are written; all earlier ones are read. Since 2 there are members Audit.
const format = 2

// ErrDamaged says that a backup is not whole: nothing of it may be used.
var ErrDamaged = errors.New("the backup is damaged or cut off")

// Head says what a backup is.
type Head struct {
	Format  int       `json:"format"`
	Created time.Time `json:"created"`
	Version string    `json:"version"` // of AIAS
}

type end struct {
	Members int `json:"members"`
}

// Writer writes a backup.
type Writer struct {
	age     io.WriteCloser
	tar     *tar.Writer
	members int
	now     time.Time
}

// NewWriter begins a backup that goes to w, encrypted to all recipients.
func NewWriter(w io.Writer, h Head, to ...age.Recipient) (*Writer, error) {
	if len(to) == 0 {
		return nil, errors.New("a backup is never written in plain: name a recipient or a passphrase")
	}
	sealed, err := age.Encrypt(w, to...)
	if err != nil {
		return nil, err
	}
	b := &Writer{age: sealed, tar: tar.NewWriter(sealed), now: h.Created}
	h.Format = format
	return b, b.json(headName, h)
}

func (b *Writer) json(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.Add(name, int64(len(data)), bytes.NewReader(data))
}

// Add writes one member of size bytes.
func (b *Writer) Add(name string, size int64, r io.Reader) error {
	if limit, err := limitOf(name); err != nil || size > limit {
		return errors.Join(err, fmt.Errorf("%s of %d bytes does not go into a backup", name, size))
	}
	if err := b.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: b.now, Format: tar.FormatPAX}); err != nil {
		return err
	}
	if _, err := io.CopyN(b.tar, r, size); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	b.members++
	return nil
}

// Close ends the backup. Without it the file is one that was cut off.
func (b *Writer) Close() error {
	if err := b.json(endName, end{b.members}); err != nil {
		return err
	}
	return errors.Join(b.tar.Close(), b.age.Close())
}

// limitOf bounds a member by its name; a name that no backup has is an error.
func limitOf(name string) (int64, error) {
	switch {
	case name == headName || name == endName || name == KeyName || name == Checkpoint:
		return maxSmall, nil
	case name == Database:
		return maxDatabase, nil
	case isBundle(name):
		return maxBundle, nil
	case strings.HasPrefix(name, Audit):
		p := strings.TrimPrefix(name, Audit)
		if len(p) <= maxPath && filepath.IsLocal(p) && path.Base(p) == p && !strings.Contains(p, "\\") {
			return maxAudit, nil
		}
	case strings.HasPrefix(name, References):
		p := strings.TrimPrefix(name, References)
		if len(p) <= maxPath && filepath.IsLocal(p) && path.Clean(p) == p && !strings.Contains(p, "\\") {
			return maxReference, nil
		}
	}
	return 0, fmt.Errorf("%w: it has a member %.80q", ErrDamaged, name)
}

func isBundle(name string) bool {
	n, ok := strings.CutPrefix(name, Entries)
	return ok && len(n) == 10 && strings.Trim(n, "0123456789") == ""
}

// Read reads a backup from its beginning to its end. each is given every member but the first and the last; what it does must be
// undone when Read returns an error.
func Read(r io.Reader, each func(name string, size int64, r io.Reader) error, ids ...age.Identity) (Head, error) {
	var h Head
	plain, err := age.Decrypt(r, ids...)
	var none *age.NoIdentityMatchError
	if errors.As(err, &none) {
		return h, errors.New("the backup is not for this passphrase or identity")
	}
	if err != nil {
		return h, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	t := tar.NewReader(plain)
	for members := 0; members < maxMembers; members++ {
		m, err := t.Next()
		if err != nil {
			return h, fmt.Errorf("%w after %d members: %w", ErrDamaged, members, noEOF(err))
		}
		limit, err := limitOf(m.Name)
		if err != nil || m.Typeflag != tar.TypeReg || m.Size > limit || (m.Name == headName) != (members == 0) {
			return h, errors.Join(err, fmt.Errorf("%w: member %.80q of %d bytes", ErrDamaged, m.Name, m.Size))
		}
		switch m.Name {
		case headName:
			if err := decode(t, &h); err != nil {
				return h, err
			}
			if h.Format < 1 || h.Format > format {
				return h, fmt.Errorf("the backup has format %d, this aias knows %d: use the aias that made it (%.40s) or a later one", h.Format, format, h.Version)
			}
		case endName:
			var e end
			if err := decode(t, &e); err != nil {
				return h, err
			}
			if e.Members != members {
				return h, fmt.Errorf("%w: %d of %d members", ErrDamaged, members, e.Members)
			}
			return h, drain(t, plain)
		default:
			member := &noted{r: t}
			if err := each(m.Name, m.Size, member); member.err != nil {
				return h, fmt.Errorf("%w: %w", ErrDamaged, member.err)
			} else if err != nil {
				return h, err
			}
		}
	}
	return h, fmt.Errorf("%w: it has no end", ErrDamaged)
}

// drain reads what follows the last member: only there age tells whether the file is whole.
func drain(t *tar.Reader, plain io.Reader) error {
	if _, err := t.Next(); err != io.EOF {
		return fmt.Errorf("%w: there is more after its end", ErrDamaged)
	}
	if n, err := io.Copy(io.Discard, plain); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	} else if n > 10240 {
		return fmt.Errorf("%w: %d bytes follow its end", ErrDamaged, n)
	}
	return nil
}

func decode(r io.Reader, v any) error {
	if err := json.NewDecoder(r).Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// noted remembers why a member could not be read to its end.
type noted struct {
	r   io.Reader
	err error
}

// Read reads.
func (n *noted) Read(p []byte) (int, error) {
	k, err := n.r.Read(p)
	if err != nil && err != io.EOF {
		n.err = err
	}
	return k, err
}
