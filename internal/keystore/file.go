package keystore

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// fileLine begins each line of a key file with more than one key; a base64 of the key follows. The first is the current one.
const fileLine = "touchstone-key-v1 "

const maxKeyFile = 64 << 10

// fileSource keeps keys in a file: 32 bytes as they are, or a line each.
type fileSource struct{ path string }

func (f *fileSource) read() ([]*key, error) {
	data, err := readSmall(f.path, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the key file: %w", err)
	}
	keys, err := parseKeyFile(data)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", f.path, err)
	}
	return keys, nil
}

func parseKeyFile(data []byte) ([]*key, error) {
	if len(data) == keySize {
		k, err := newKey("file", data)
		return []*key{k}, err
	}
	var keys []*key
	for line := range bytes.Lines(data) {
		line = bytes.TrimSpace(line)
		text, ok := bytes.CutPrefix(line, []byte(fileLine))
		raw, err := base64.StdEncoding.DecodeString(string(text))
		if !ok || err != nil || len(raw) != keySize {
			return nil, fmt.Errorf("want %d random bytes, or lines of %q and the base64 of such bytes", keySize, fileLine)
		}
		k, err := newKey("file", raw)
		if err != nil {
			return nil, err
		}
		if len(keys) == maxKeys || slices.ContainsFunc(keys, func(o *key) bool { return o.id == k.id }) {
			return nil, fmt.Errorf("want at most %d keys, each once", maxKeys)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("it is empty: restore it")
	}
	return keys, nil
}

func (f *fileSource) write(keys []*key) error {
	var b bytes.Buffer
	for _, k := range keys {
		b.WriteString(fileLine + base64.StdEncoding.EncodeToString(k.raw) + "\n")
	}
	if len(keys) == 1 {
		b.Reset()
		b.Write(keys[0].raw)
	}
	return replace(f.path, b.Bytes())
}

// find: a file that is not there is one only when a key in it is asked for.
func (f *fileSource) find(_ context.Context, records []record) ([]KEK, error) {
	if !slices.ContainsFunc(records, func(r record) bool { return r.kind() == "file" }) {
		return nil, nil
	}
	keys, err := f.read()
	if err != nil {
		return nil, fmt.Errorf("%w: restore it, without it the secrets of AIAS are lost", err)
	}
	var out []KEK
	for _, k := range keys {
		if known(records, k.id) {
			out = append(out, k)
		}
	}
	return out, nil
}

func known(records []record, id string) bool {
	return slices.ContainsFunc(records, func(r record) bool { return r.ID == id })
}

func (f *fileSource) add(_ context.Context, records []record) (KEK, record, error) {
	keys, err := f.read()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, record{}, err
	}
	if len(keys) > 0 && !known(records, keys[0].id) {
		return keys[0], record{}, nil
	}
	k, err := newKey("file", randomKey())
	if err != nil {
		return nil, record{}, err
	}
	if err := f.write(append([]*key{k}, keys...)); err != nil {
		return nil, record{}, fmt.Errorf("put a new key into the key file: %w (when AIAS may not write it, put a new key in front of the others and rotate again)", err)
	}
	return k, record{}, nil
}

func (f *fileSource) retire(_ context.Context, _, kept []record) error {
	keys, err := f.read()
	if err != nil {
		return err
	}
	left := slices.DeleteFunc(slices.Clone(keys), func(k *key) bool { return !known(kept, k.id) })
	if len(left) == len(keys) || len(left) == 0 {
		return nil
	}
	if err := f.write(left); err != nil {
		return fmt.Errorf("take the old keys out of the key file: %w (take them out by hand: nothing is sealed under them any more)", err)
	}
	return nil
}

// readSmall reads a file of at most limit bytes.
func readSmall(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s has %d bytes: want at most %d", path, info.Size(), limit)
	}
	return os.ReadFile(path)
}

// replace writes a file that only its owner can read. After a crash there is the old file or the new one, whole; what a crash left beside it
// goes with the next call.
func replace(path string, data []byte) error {
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"-*"))
	if err != nil {
		return err
	}
	for _, l := range left {
		if err := os.Remove(l); err != nil {
			return err
		}
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
