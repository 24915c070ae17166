package keystore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Records keeps what is known of the keys of a ring beside what is sealed under them, so that both are always from one moment: IDs, salts,
// what a TPM sealed. It is not secret.
type Records interface {
	// LoadKeys returns what was saved last, nil when nothing was.
	LoadKeys(ctx context.Context) ([]byte, error)
	// SaveKeys returns when the records are on disk, whole.
	SaveKeys(ctx context.Context, records []byte) error
}

// record is what is known of one key.
type record struct {
	ID      string     `json:"id"`
	Created time.Time  `json:"created"`
	Argon2  *argon2id  `json:"argon2id,omitempty"`
	TPM     *sealedKey `json:"tpm,omitempty"`
}

func (r record) kind() string {
	kind, _, _ := strings.Cut(r.ID, ":")
	return kind
}

type book struct {
	Current string   `json:"current"`
	Keys    []record `json:"keys"`
}

const maxKeys = 64 // in a book: each rotation adds one, and drops the one before when it is through

// source is an opened place of keys.
type source interface {
	// find returns those keys of the records that are there. A place that cannot be used now is an error.
	find(ctx context.Context, records []record) ([]KEK, error)
	// add returns a key that is in none of the records: one that an administrator put there to be used next, else a new one.
	add(ctx context.Context, records []record) (KEK, record, error)
	// retire destroys keys that AIAS made there and needs no more.
	retire(ctx context.Context, gone, kept []record) error
}

// origin is where a ring came from.
type origin struct {
	records Records
	book    book
	main    source
	kind    string // of main
	now     func() time.Time
}

// Open opens the keys that a configuration names and the records know. With empty records it takes or makes a first key.
func Open(ctx context.Context, c Config, records Records) (*Ring, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	o := &origin{records: records, now: time.Now}
	if err := o.load(ctx); err != nil {
		return nil, err
	}
	r := &Ring{keys: map[string]KEK{}, origin: o}
	for i, s := range append([]Source{c.Source}, c.Older...) {
		src, err := s.open()
		if err != nil {
			return nil, err
		}
		if i == 0 {
			o.main, o.kind = src, s.kinds()[0]
		}
		if len(o.book.Keys) == 0 {
			break // nothing to find
		}
		found, err := src.find(ctx, o.book.Keys)
		if err != nil {
			return nil, err
		}
		for _, k := range found {
			r.keys[k.ID()] = k
		}
	}
	if len(o.book.Keys) == 0 {
		_, err := r.Rotate(ctx)
		return r, err
	}
	if r.current = r.keys[o.book.Current]; r.current == nil {
		return nil, fmt.Errorf("the secrets of this data folder are %w: it is %s (a wrong key file or passphrase looks like this too)", ErrUnknownKey, o.book.Current)
	}
	return r, nil
}

func (s Source) open() (source, error) {
	switch {
	case s.File != "":
		return &fileSource{path: s.File}, nil
	case s.PassphraseFile != "":
		return &passphraseSource{path: s.PassphraseFile}, nil
	case s.TPM != nil:
		return &tpmSource{*s.TPM}, nil
	case s.PKCS11 != nil:
		return openPKCS11(*s.PKCS11)
	case s.Transit != nil:
		return openTransit(*s.Transit)
	}
	return nil, errors.New("no source of key-encryption keys is set")
}

func (o *origin) load(ctx context.Context) error {
	data, err := o.records.LoadKeys(ctx)
	if err != nil {
		return fmt.Errorf("load the records of key-encryption keys: %w", err)
	}
	o.book, err = parseBook(data)
	return err
}

func parseBook(data []byte) (b book, err error) {
	if data == nil {
		return b, nil
	}
	bad := func(why string) (book, error) {
		return book{}, fmt.Errorf("the records of key-encryption keys are damaged (%s): restore a backup", why)
	}
	if err := json.Unmarshal(data, &b); err != nil {
		return bad(err.Error())
	}
	if len(b.Keys) == 0 || len(b.Keys) > maxKeys {
		return bad(fmt.Sprintf("%d keys", len(b.Keys)))
	}
	seen := map[string]bool{}
	for _, k := range b.Keys {
		if err := errors.Join(checkID(k.ID), k.Argon2.check(), k.TPM.check()); err != nil {
			return bad(err.Error())
		}
		if seen[k.ID] {
			return bad(k.ID + " twice")
		}
		seen[k.ID] = true
	}
	if !seen[b.Current] {
		return bad("the current key is not among them")
	}
	return b, nil
}

func (o *origin) save(ctx context.Context, b book) error {
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if err := o.records.SaveKeys(ctx, data); err != nil {
		return fmt.Errorf("save the records of key-encryption keys: %w", err)
	}
	o.book = b
	return nil
}

// errNoOrigin is what a ring without a configuration answers.
var errNoOrigin = errors.New("this ring of keys was not opened from a configuration")

// Rotate makes a new key the current one, from the source that stands first in the configuration, and returns its ID. What older keys have
// sealed stays under them until its keeper has passed it through Rewrap.
func (r *Ring) Rotate(ctx context.Context) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.origin
	if o == nil {
		return "", errNoOrigin
	}
	if len(o.book.Keys) >= maxKeys {
		return "", fmt.Errorf("%d key-encryption keys are in use: end the rotation before starting another", len(o.book.Keys))
	}
	k, rec, err := o.main.add(ctx, o.book.Keys)
	if err != nil {
		return "", err
	}
	rec.ID, rec.Created = k.ID(), o.now().UTC().Truncate(time.Second)
	if err := o.save(ctx, book{Current: rec.ID, Keys: append(slices.Clone(o.book.Keys), rec)}); err != nil {
		return "", err
	}
	r.current, r.keys[rec.ID] = k, k
	return rec.ID, nil
}

// Retire forgets all keys but the current one, and destroys those that AIAS made in the source that stands first in the configuration. Only
// call it when nothing is sealed under them any more. Until it is closed this ring still opens what somebody holds in memory.
func (r *Ring) Retire(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.origin
	if o == nil {
		return errNoOrigin
	}
	var gone, kept []record
	for _, k := range o.book.Keys {
		if k.ID == o.book.Current {
			kept = append(kept, k)
		} else {
			gone = append(gone, k)
		}
	}
	if err := o.save(ctx, book{Current: o.book.Current, Keys: kept}); err != nil {
		return err
	}
	return o.main.retire(ctx, gone, kept)
}

// Info describes a key of a ring.
type Info struct {
	ID      string    `json:"id"`
	Kind    string    `json:"kind"` // file, passphrase, tpm, pkcs11 or transit
	Created time.Time `json:"created"`
	Current bool      `json:"current"`
	Missing bool      `json:"missing"` // what is sealed under it cannot be opened
}

// Keys lists the keys of a ring that was opened from a configuration, oldest first.
func (r *Ring) Keys() []Info {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.origin == nil {
		return nil
	}
	var out []Info
	for _, k := range r.origin.book.Keys {
		out = append(out, Info{k.ID, k.kind(), k.Created, k.ID == r.origin.book.Current, r.keys[k.ID] == nil})
	}
	return out
}

// Moving tells whether the configuration puts another kind of place first than the current key is from: a rotation would move there.
func (r *Ring) Moving() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	kind, _, _ := strings.Cut(r.current.ID(), ":")
	return r.origin != nil && kind != r.origin.kind
}
