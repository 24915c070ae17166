// Command extract makes the references beside it: what the product's own importers read from the packages of the boot fixtures, cut
// down to what those boots measured, so that the repository's tests need nothing outside it.
//
//	go run ./test/boots/references/extract FIXTURES
//
// FIXTURES is a folder with packages/*.deb, site/files.sha256, tpm-ca/ and boots/*/. An image, module or file is kept when its digest occurs
// in one of the boots' logs; keys are kept all.
package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"touchstone.dev/touchstone/internal/reference"
)

// imported is fixed, so that making the extract again changes nothing.
var imported = time.Date(2026, time.November, 22, 0, 0, 0, 0, time.UTC)

const note = "extract for the tests of this repository: only what the boots in test/boots measured"

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: extract FIXTURES")
		os.Exit(2)
	}
	if err := run(os.Args[1], filepath.Join("test", "boots", "references")); err != nil {
		fmt.Fprintln(os.Stderr, "extract:", err)
		os.Exit(1)
	}
}

func run(fixtures, out string) error {
	logs, err := readLogs(fixtures)
	if err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(fixtures, "packages", "*.deb"))
	if err != nil {
		return err
	}
	for _, path := range packages {
		start := time.Now()
		s, err := importFile(path, reference.ImportPackage)
		if err != nil {
			return err
		}
		fmt.Printf("%s %s: %d files, %d images, %d modules in %.1f s\n", s.Name, s.Version, len(s.Files), len(s.Images), len(s.Modules), time.Since(start).Seconds())
		cut(s, logs)
		if err := write(out, s); err != nil {
			return err
		}
	}
	site, err := importFile(filepath.Join(fixtures, "site", "files.sha256"), reference.ImportFiles)
	if err != nil {
		return err
	}
	if err := write(out, site); err != nil {
		return err
	}
	cas, err := reference.ImportEKRoots(filepath.Join(fixtures, "tpm-ca"), reference.Options{Name: "CA of the software TPMs in test/boots", Now: imported, Note: note})
	if err != nil {
		return err
	}
	return write(out, cas)
}

// readLogs returns all logs of all boots in one piece.
func readLogs(fixtures string) ([]byte, error) {
	var all []byte
	for _, pattern := range []string{"*/eventlog.bin", "*/ima.bin", "*/after/ima.bin"} {
		paths, err := filepath.Glob(filepath.Join(fixtures, "boots", pattern))
		if err != nil {
			return nil, err
		}
		for _, p := range paths {
			b, err := os.ReadFile(p)
			if err != nil {
				return nil, err
			}
			all = append(all, b...)
		}
	}
	return all, nil
}

func importFile(path string, imp func(io.Reader, reference.Options) (*reference.Source, error)) (*reference.Source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return imp(f, reference.Options{File: path, Now: imported, Note: note})
}

// cut drops what no log mentions.
func cut(s *reference.Source, logs []byte) {
	unseen := func(digest string) bool {
		b, err := hex.DecodeString(digest)
		return err != nil || !bytes.Contains(logs, b)
	}
	s.Files = slices.DeleteFunc(s.Files, func(f reference.File) bool { return unseen(f.SHA256) })
	s.Modules = slices.DeleteFunc(s.Modules, func(m reference.Module) bool { return unseen(m.SHA256) })
	s.Images = slices.DeleteFunc(s.Images, func(im reference.Image) bool { return unseen(im.Authenticode["sha256"]) })
}

func write(dir string, s *reference.Source) error {
	path, err := reference.WriteSource(dir, *s)
	if err != nil {
		return err
	}
	fmt.Println(path)
	return nil
}
