package nbde

import (
	"errors"
	"fmt"
	"sync"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

// Held is a key of a ring.
type Held struct {
	*Key
	// Rotated keys recover, and sign where their thumbprint is asked for, and are not advertised.
	Rotated bool
}

// Ring is the keys of one URL prefix. It is immutable: a rotation makes another one.
type Ring struct {
	byName map[string]*Held
	// signed makes the advertisement that is signed by all advertised keys and one more, by the thumbprint of that one. The plain advertisement is
	// under "". Each is made once, when somebody asks for it.
	signed map[string]func() ([]byte, error)
}

// NewRing puts keys together. Without an advertised key of each use, it recovers and advertises nothing.
func NewRing(keys []Held) (*Ring, error) {
	r := &Ring{byName: map[string]*Held{}, signed: map[string]func() ([]byte, error){}}
	var set struct {
		Keys []jwk `json:"keys"`
	}
	var signers []*Key
	exchanges := 0
	for i := range keys {
		k := &keys[i]
		if old := r.byName[k.Thumbprint]; old != nil {
			return nil, fmt.Errorf("key %s is there twice", k.Thumbprint)
		}
		for _, name := range k.names {
			r.byName[name] = k
		}
		if k.Rotated {
			continue
		}
		set.Keys = append(set.Keys, k.jwk())
		if k.Use == Sign {
			signers = append(signers, k.Key)
		} else {
			exchanges++
		}
	}
	if len(signers) == 0 || exchanges == 0 {
		return r, nil
	}
	payload, err := json.Marshal(set)
	if err != nil {
		return nil, err
	}
	r.signed[""] = sync.OnceValues(func() ([]byte, error) { return advertise(payload, signers) })
	for i := range keys {
		switch k := &keys[i]; {
		case k.Use == Sign && k.Rotated:
			with := append([]*Key{k.Key}, signers...)
			r.signed[k.Thumbprint] = sync.OnceValues(func() ([]byte, error) { return advertise(payload, with) })
		case k.Use == Sign:
			r.signed[k.Thumbprint] = r.signed[""]
		}
	}
	return r, nil
}

// advertise signs a key set: flattened JSON for one key, general JSON for several (RFC 7515, 7.2).
func advertise(payload []byte, signers []*Key) ([]byte, error) {
	keys := make([]jose.SigningKey, len(signers))
	for i, k := range signers {
		keys[i] = jose.SigningKey{Algorithm: jose.ES512, Key: k.signer}
	}
	s, err := jose.NewMultiSigner(keys, (&jose.SignerOptions{}).WithContentType("jwk-set+json"))
	if err != nil {
		return nil, fmt.Errorf("sign the advertisement: %w", err)
	}
	jws, err := s.Sign(payload)
	if err != nil {
		return nil, fmt.Errorf("sign the advertisement: %w", err)
	}
	return []byte(jws.FullSerialize()), nil
}

var errNoKey = errors.New("there is no such key")

// Advertisement returns the signed public keys; with a thumbprint, signed also by that key.
func (r *Ring) Advertisement(name string) ([]byte, error) {
	if name != "" {
		k := r.byName[name]
		if k == nil {
			return nil, errNoKey
		}
		name = k.Thumbprint
	}
	make := r.signed[name]
	if make == nil {
		return nil, errNoKey
	}
	return make()
}

// Find returns the key of a thumbprint (of any of the hashes), nil when there is none.
func (r *Ring) Find(name string) *Held { return r.byName[name] }
