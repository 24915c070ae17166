package keystore

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/argon2"
)

// Cost of a new passphrase key: the second recommendation of RFC 9106, section 4. It is paid at each start, once for each passphrase and key.
const (
	argonTime    = 3
	argonMemory  = 64 << 10 // KiB
	argonThreads = 4
	saltSize     = 16

	minPassphrase  = 12
	maxPassphrases = 8
)

// argon2id says how a key is made of a passphrase (RFC 9106).
type argon2id struct {
	Salt    []byte `json:"salt"`
	Time    uint32 `json:"time"`
	Memory  uint32 `json:"memory"` // KiB
	Threads uint8  `json:"threads"`
}

// check bounds what a damaged record could make AIAS spend.
func (a *argon2id) check() error {
	if a == nil {
		return nil
	}
	if len(a.Salt) != saltSize || a.Time < 1 || a.Time > 16 || a.Memory < 8<<10 || a.Memory > 1<<20 || a.Threads < 1 || a.Threads > 16 {
		return errors.New("cost of argon2id out of bounds")
	}
	return nil
}

func (a *argon2id) key(passphrase []byte) (*key, error) {
	return newKey("passphrase", argon2.IDKey(passphrase, a.Salt, a.Time, a.Memory, a.Threads, keySize))
}

// passphraseSource derives keys from the lines of a file.
type passphraseSource struct{ path string }

func (p *passphraseSource) read() ([][]byte, error) {
	data, err := readSmall(p.path, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the passphrase: %w", err)
	}
	var out [][]byte
	for line := range bytes.Lines(data) {
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			continue
		}
		if len(line) < minPassphrase {
			return nil, fmt.Errorf("a passphrase in %s has %d characters: want at least %d", p.path, len(line), minPassphrase)
		}
		out = append(out, line)
	}
	if len(out) == 0 || len(out) > maxPassphrases {
		return nil, fmt.Errorf("%s has %d passphrases: want the current one in the first line, and below it at most %d older ones", p.path, len(out), maxPassphrases-1)
	}
	return out, nil
}

func (p *passphraseSource) find(_ context.Context, records []record) ([]KEK, error) {
	records = slices.DeleteFunc(slices.Clone(records), func(r record) bool { return r.Argon2 == nil })
	if len(records) == 0 {
		return nil, nil
	}
	lines, err := p.read()
	if err != nil {
		return nil, err
	}
	var out []KEK
	for _, r := range records {
		for _, line := range lines {
			k, err := r.Argon2.key(line)
			if err != nil {
				return nil, err
			}
			if k.id == r.ID { // 64 bits, derived from the key: only the right passphrase gives them
				out = append(out, k)
				break
			}
		}
	}
	return out, nil
}

func (p *passphraseSource) add(context.Context, []record) (KEK, record, error) {
	lines, err := p.read()
	if err != nil {
		return nil, record{}, err
	}
	a := &argon2id{Salt: make([]byte, saltSize), Time: argonTime, Memory: argonMemory, Threads: argonThreads}
	_, _ = rand.Read(a.Salt) // never fails: crypto/rand ends the program instead
	k, err := a.key(lines[0])
	return k, record{Argon2: a}, err
}

func (p *passphraseSource) retire(context.Context, []record, []record) error { return nil }
