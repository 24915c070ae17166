package reference

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Limits on a folder of CA certificates.
const (
	maxCAFiles = 4096
	maxCAFile  = 4 << 20 // bytes
	maxCAs     = 8192
)

// ImportEKRoots reads a folder of CA certificates for EK certificates, with its subfolders: PEM files with any number of certificates, or
// DER. Self-signed ones become roots, all others complete chains below them. Certificates that are no CA or cannot be read are
// told to Options.Warn and left out. A folder without a single root is refused: no EK would ever be accepted by it.
func ImportEKRoots(dir string, o Options) (*Source, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrImport, err)
	}
	defer root.Close() //nolint:errcheck // only read from
	in := endorserImport{o: &o, seen: make(map[[sha256.Size]byte]bool)}
	digest := sha256.New()
	files := 0
	err = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if files++; files > maxCAFiles {
			return fmt.Errorf("more than %d files", maxCAFiles)
		}
		b, err := readRootFile(root, path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		sum := sha256.Sum256(b)
		fmt.Fprintf(digest, "%x  %s\n", sum, filepath.ToSlash(path))
		return in.file(filepath.ToSlash(path), b)
	})
	if err == nil && in.roots == 0 {
		err = fmt.Errorf("no self-signed CA certificate in %d files (%d others)", files, len(in.certs))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: CA folder %s: %w", ErrImport, dir, err)
	}
	if o.File == "" {
		o.File = filepath.Base(dir)
	}
	s := o.source(KindEndorser, digest.Sum(nil))
	s.CAs = in.certs
	slices.SortFunc(s.CAs, func(a, b Certificate) int { return cmp.Compare(a.SHA256, b.SHA256) })
	return s, nil
}

func readRootFile(root *os.Root, path string) ([]byte, error) {
	f, err := root.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, maxCAFile)
}

type endorserImport struct {
	o     *Options
	certs []Certificate
	roots int
	seen  map[[sha256.Size]byte]bool
}

func (in *endorserImport) file(path string, b []byte) error {
	blocks, err := certificateBlocks(b)
	if err != nil {
		in.o.warn("%s: left out: %v", path, err)
		return nil
	}
	for i, der := range blocks {
		if err := in.add(path, der); err != nil {
			in.o.warn("%s: certificate %d left out: %v", path, i+1, err)
		}
		if len(in.certs) > maxCAs {
			return fmt.Errorf("more than %d certificates", maxCAs)
		}
	}
	return nil
}

// certificateBlocks returns the certificates of a file, in DER.
func certificateBlocks(b []byte) ([][]byte, error) {
	if len(b) > 0 && b[0] == 0x30 {
		return [][]byte{b}, nil
	}
	var out [][]byte
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			out = append(out, block.Bytes)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("no certificate in it")
	}
	return out, nil
}

func (in *endorserImport) add(path string, der []byte) error {
	key := sha256.Sum256(der)
	if in.seen[key] {
		return nil
	}
	in.seen[key] = true
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	selfSigned := isRoot(c)
	switch {
	case c.BasicConstraintsValid && !c.IsCA, !c.BasicConstraintsValid && !selfSigned:
		return fmt.Errorf("%s is no CA", c.Subject)
	case bytes.Equal(c.RawSubject, c.RawIssuer) && !selfSigned:
		return fmt.Errorf("%s names itself as issuer but did not sign itself", c.Subject)
	}
	if selfSigned {
		in.roots++
	}
	cert := newCertificate(c)
	cert.File = path
	in.certs = append(in.certs, cert)
	return nil
}
