package keystore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Why a sealed secret does not open.
var (
	// ErrUnknownKey says that the secret is sealed under a key-encryption key that is not here.
	ErrUnknownKey = errors.New("sealed under a key-encryption key that is not here: name it under keys.older in the configuration, or restore it")
	// ErrSealed says that the sealed form is damaged, or belongs to another secret or place. Which of them cannot be told.
	ErrSealed = errors.New("the sealed secret is damaged or belongs elsewhere")
)

// KEK is a key-encryption key. All methods are safe for concurrent use.
type KEK interface {
	// ID names the key, and is not secret: 1 to 64 of a-z, 0-9, '-', '.', ':' and '_'. Two keys never share one.
	ID() string
	// Wrap encrypts plain and binds it to aad. Wrapping the same twice gives different results.
	Wrap(ctx context.Context, plain, aad []byte) ([]byte, error)
	// Unwrap returns what was wrapped with the same aad. Errors wrap ErrSealed or ErrUnknownKey, or say that the key cannot be used now.
	Unwrap(ctx context.Context, wrapped, aad []byte) ([]byte, error)
}

// Ring is a KEK made of several: the current one wraps, and all of them unwrap. What it wraps is the sealed form of this package.
type Ring struct {
	mu      sync.RWMutex
	current KEK
	keys    map[string]KEK
	origin  *origin // nil for a ring made by NewRing
}

// NewRing returns a ring of keys that the caller has. Open makes one from a configuration.
func NewRing(current KEK, older ...KEK) (*Ring, error) {
	r := &Ring{current: current, keys: map[string]KEK{}}
	for _, k := range append([]KEK{current}, older...) {
		if err := checkID(k.ID()); err != nil {
			return nil, err
		}
		if r.keys[k.ID()] != nil {
			return nil, fmt.Errorf("key-encryption key %s: two keys have this ID", k.ID())
		}
		r.keys[k.ID()] = k
	}
	return r, nil
}

// ID returns the ID of the key that wraps now.
func (r *Ring) ID() string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.current.ID()
}

// IDs returns the IDs of all keys, sorted.
func (r *Ring) IDs() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Sorted(maps.Keys(r.keys))
}

// Wrap seals plain under the current key.
func (r *Ring) Wrap(ctx context.Context, plain, aad []byte) ([]byte, error) {
	r.mu.RLock()
	k := r.current
	r.mu.RUnlock()
	return seal(ctx, k, plain, aad)
}

// Unwrap opens what any key of the ring has sealed.
func (r *Ring) Unwrap(ctx context.Context, sealed, aad []byte) ([]byte, error) {
	e, err := parse(sealed)
	if err != nil {
		return nil, err
	}
	r.mu.RLock()
	k := r.keys[e.id]
	r.mu.RUnlock()
	if k == nil {
		return nil, fmt.Errorf("key %s: %w", e.id, ErrUnknownKey)
	}
	return e.open(ctx, k, aad)
}

// Rewrap seals under the current key what an older one has sealed. It returns nil when that is so already.
func (r *Ring) Rewrap(ctx context.Context, sealed, aad []byte) ([]byte, error) {
	if id, err := SealedBy(sealed); err != nil || id == r.ID() {
		return nil, err
	}
	plain, err := r.Unwrap(ctx, sealed, aad)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return r.Wrap(ctx, plain, aad)
}

func checkID(id string) error {
	bad := strings.ContainsFunc(id, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("-.:_", c)
	})
	if bad || id == "" || len(id) > maxID {
		return fmt.Errorf("ID %q of a key-encryption key: want 1 to %d of a-z, 0-9, -, ., : and _", id, maxID)
	}
	return nil
}
