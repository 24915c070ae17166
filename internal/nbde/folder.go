package nbde

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// maxFolder is how many keys a folder of tangd may hold.
const maxFolder = 1000

// ReadFolder reads the keys of a tangd: every .jwk file of its folder (Debian: /var/lib/tang). A name that begins with a dot means that the key is
// rotated. One file that cannot be used fails the whole: a disk may be bound to it.
func ReadFolder(dir string) ([]Held, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read the keys of tangd: %w", err)
	}
	var keys []Held
	var errs []error
	seen := map[string]string{}
	for _, e := range entries {
		name := e.Name()
		if !strings.HasSuffix(name, ".jwk") {
			continue
		}
		if len(keys)+len(errs) == maxFolder {
			return nil, fmt.Errorf("read the keys of tangd: more than %d in %s", maxFolder, dir)
		}
		k, err := readKey(filepath.Join(dir, name))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		if other := seen[k.Thumbprint]; other != "" {
			errs = append(errs, fmt.Errorf("%s and %s hold the same key: remove one", other, name))
			continue
		}
		seen[k.Thumbprint] = name
		keys = append(keys, Held{k, strings.HasPrefix(name, ".")})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("read the keys of tangd in %s: %w", dir, err)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("read the keys of tangd: no .jwk file in %s", dir)
	}
	return keys, nil
}

func readKey(path string) (*Key, error) {
	if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxJWK+1))
	if err != nil {
		return nil, err
	}
	return ParseKey(b)
}
