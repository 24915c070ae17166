package touchstone_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

// The tests of this folder hold the house together: they look at all code and documents of the repository, whatever is there,
// and need no change when a package appears. What each one demands stands in a table above it.

const module = "touchstone.dev/touchstone"

// maxLines is how long a Go file or script may be. One that outgrows it usually holds two ideas.
const maxLines = 350

// goFile is one parsed Go file.
type goFile struct {
	path      string // relative to the root, with slashes
	pkg       string // folder of it, "." for the root
	test      bool
	generated bool
	syntax    *ast.File
	imports   []string
	lines     int
}

// house is everything in the repository that these tests look at.
type house struct {
	fset  *token.FileSet
	goes  []goFile
	texts map[string]string // every text file by path, Go files included
}

// loadHouse reads the repository once for all tests.
var loadHouse = sync.OnceValues(func() (*house, error) {
	h := &house{fset: token.NewFileSet(), texts: map[string]string{}}
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if d.IsDir() {
			if slices.Contains([]string{".git", ".cache", "bin", "node_modules"}, d.Name()) {
				return fs.SkipDir
			}
			if _, err := os.Stat(path.Join(name, "go.mod")); err == nil && name != "." {
				return fs.SkipDir // a module of its own: programs that tests run, none of which the product depends on
			}
			return nil
		}
		if !d.Type().IsRegular() || d.Name() == ".git" { // a file in a work tree of git
			return nil
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if utf8.Valid(content) && !bytes.ContainsRune(content, 0) {
			h.texts[name] = string(content)
		}
		if path.Ext(name) == ".go" && !strings.Contains(name, "testdata/") {
			return h.addGo(name, content)
		}
		return nil
	})
	return h, err
})

// addGo parses one Go file.
func (h *house) addGo(name string, content []byte) error {
	syntax, err := parser.ParseFile(h.fset, name, content, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	f := goFile{
		path: name, pkg: path.Dir(name), syntax: syntax,
		test:      strings.HasSuffix(name, "_test.go"),
		generated: ast.IsGenerated(syntax),
		lines:     bytes.Count(content, []byte("\n")),
	}
	for _, spec := range syntax.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		f.imports = append(f.imports, imported)
	}
	h.goes = append(h.goes, f)
	return nil
}

// theHouse returns the repository, or ends the test.
func theHouse(t *testing.T) *house {
	t.Helper()
	h, err := loadHouse()
	if err != nil {
		t.Fatalf("reading the repository: %v", err)
	}
	return h
}

func TestPackageComments(t *testing.T) {
	comments := map[string][]string{} // by package: files with a package comment
	for _, f := range theHouse(t).goes {
		if f.test {
			continue
		}
		comments[f.pkg] = append(comments[f.pkg], "")
		if f.syntax.Doc == nil {
			continue
		}
		comments[f.pkg] = append(comments[f.pkg], f.path)
		name, text := f.syntax.Name.Name, f.syntax.Doc.Text()
		begin := "Package " + name + " "
		if name == "main" {
			begin = "" // a program's comment begins as its author likes
		}
		if !strings.HasPrefix(text, begin) {
			t.Errorf("%s: package comment begins %.40q, want %q", f.path, text, begin)
		}
	}
	for pkg, files := range comments {
		files = slices.DeleteFunc(files, func(s string) bool { return s == "" })
		if len(files) != 1 {
			t.Errorf("package %s: package comment in %d files %q, want exactly one", pkg, len(files), files)
		}
	}
}

func TestFileLength(t *testing.T) {
	h := theHouse(t)
	for _, f := range h.goes {
		if !f.test && !f.generated && f.lines > maxLines {
			t.Errorf("%s: %d lines, want at most %d: split it where the second idea begins", f.path, f.lines, maxLines)
		}
	}
	for name, text := range h.texts {
		if n := strings.Count(text, "\n"); strings.HasPrefix(text, "#!") && n > maxLines {
			t.Errorf("%s: %d lines, want at most %d", name, n, maxLines)
		}
	}
}

// TestNoSkips: a test that cannot run must fail and say what it needs; `make test` installs it.
func TestNoSkips(t *testing.T) {
	for _, f := range theHouse(t).goes {
		if !f.test {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok || !slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && slices.Contains([]string{"t", "b", "f", "tb"}, x.Name) {
				t.Errorf("%s: %s.%s: tests are not skipped", theHouse(t).fset.Position(n.Pos()), x.Name, sel.Sel.Name)
			}
			return true
		})
	}
}

func TestLicence(t *testing.T) {
	text := theHouse(t).texts["LICENSE"]
	for _, want := range []string{"Apache License", "Version 2.0, January 2004", "END OF TERMS AND CONDITIONS"} {
		if !strings.Contains(text, want) {
			t.Errorf("LICENSE: does not contain %q, want the text of Apache-2.0", want)
		}
	}
}

// unwanted must not stand in any tracked text file.
var unwanted = []struct {
	what    string
	pattern *regexp.Regexp
}{
	// Written so that no pattern matches itself.
	{"path of one machine", regexp.MustCompile(`(^|[^\w.])/(work)/|/(home)/[a-z]|(^|[^\w.])/(root)/[\w.]`)},
	{"host name of a package registry", regexp.MustCompile(`proxy\.(golang)\.org|sum\.(golang)\.org|deb\.(debian)\.org|security\.(debian)\.org|registry\.(npmjs)\.org`)},
	{"mark of unfinished work", regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b`)},
	{"unresolved merge", regexp.MustCompile(`^(<{7}|>{7}) `)},
}

// TestTexts looks at every text file but test data, which is what machines wrote.
func TestTexts(t *testing.T) {
	for name, text := range theHouse(t).texts {
		if strings.Contains("/"+name, "/testdata/") {
			continue
		}
		for i, line := range strings.Split(text, "\n") {
			for _, u := range unwanted {
				if m := u.pattern.FindString(line); m != "" {
					t.Errorf("%s:%d: %s: %q", name, i+1, u.what, m)
				}
			}
		}
	}
}
