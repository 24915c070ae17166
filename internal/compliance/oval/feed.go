package oval

import (
	"compress/bzip2"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Feed is what is kept of a feed.
type Feed struct {
	SHA256 string    // of the file, hexadecimal
	Made   time.Time // by its generator
	// Unsupported is how many definitions have tests that are not known here.
	Unsupported int
	definitions []definition
	tests       []test
}

// Definitions is how many definitions the feed has.
func (f *Feed) Definitions() int { return len(f.definitions) + f.Unsupported }

type definition struct {
	name, severity string // "CVE-..." or the definition's id
	criteria       node
}

// node is a criteria, or a criterion: then it has a test.
type node struct {
	or, negate bool
	test       int // index; -1 for a criteria
	ref        string
	kids       []node
}

// kinds of tests.
const (
	ofPackage = iota + 1
	ofText
	ofKernel
)

// test is a test with its object and its state.
type test struct {
	kind             int
	check, existence string
	// object: a package's name, or a file with a pattern and which match of it counts (0: all).
	name, pattern string
	instance      int
	// state; without one being there is enough.
	state     bool
	operation string
	value     string
}

// maxFeed is how large a feed may be unpacked, in bytes.
const maxFeed = 512 << 20

// suffixes are what a feed may be named by after its system's name.
var suffixes = []string{".xml", ".xml.gz", ".xml.bz2"}

// Find returns the feed of a folder for a release of Debian ("bookworm"), as Debian names it.
func Find(dir, codename string) (string, error) {
	if codename == "" || strings.Trim(codename, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return "", fmt.Errorf("the image does not say which release of Debian it is (VERSION_CODENAME %.40q)", codename)
	}
	name := "oval-definitions-" + codename
	for _, s := range suffixes {
		p := filepath.Join(dir, name+s)
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s has no %s%s (or .gz, .bz2): fetch it from https://www.debian.org/security/oval/", dir, name, suffixes[0])
}

// Load reads a feed, plain or packed by gzip or bzip2. One that was made more than maxAge before now, or after it, is refused; 0 takes any age.
func Load(path string, maxAge time.Duration, now time.Time) (*Feed, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was read
	sum := sha256.New()
	in := io.TeeReader(f, sum)
	switch filepath.Ext(path) {
	case ".gz":
		if in, err = gzip.NewReader(in); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	case ".bz2":
		in = bzip2.NewReader(in)
	}
	feed, err := Parse(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if _, err := io.Copy(sum, f); err != nil {
		return nil, err
	}
	feed.SHA256 = hex.EncodeToString(sum.Sum(nil))
	if maxAge > 0 {
		switch age := now.Sub(feed.Made); {
		case feed.Made.IsZero():
			err = errors.New("it does not say when it was made")
		case age > maxAge:
			err = fmt.Errorf("it was made %s, more than %s ago: fetch a new one", feed.Made.UTC().Format(time.RFC3339), maxAge)
		case age < -24*time.Hour:
			err = fmt.Errorf("it was made %s, in the future: is the clock right?", feed.Made.UTC().Format(time.RFC3339))
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return feed, nil
}
