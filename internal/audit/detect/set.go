package detect

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"touchstone.dev/touchstone/internal/audit/detect/sigma"
)

//go:embed rules/*.yml
var shipped embed.FS

// Limits of a folder of rules.
const (
	maxFiles = 2000
	maxFile  = 1 << 20 // bytes
)

// Rule is one rule of a set.
type Rule struct {
	Doc    *sigma.Document
	Effect *Effect
	// Techniques are those of MITRE ATT&CK that the rule's tags name: "T1496".
	Techniques []string
	Shipped    bool

	show    []column // what a detection tells
	subject []column
	fixes   []int // rules whose detections end when this one matches
}

// column is a field that a detection shows.
type column struct {
	name string
	id   int
}

// Set is a compiled set of rules, shared by all nodes and never changed.
type Set struct {
	rules  *sigma.Set
	schema *schema
	list   []Rule
	boot   []string // names of the rules whose detections a boot ends
	id     string
}

// Source is a file with rules.
type Source struct {
	Name    string
	Data    []byte
	Shipped bool
}

// Shipped returns the rules that come with the product.
func Shipped() []Source {
	names, err := fs.Glob(shipped, "rules/*.yml")
	if err != nil {
		panic("detect: the pattern is constant: " + err.Error())
	}
	var out []Source
	for _, n := range names {
		b, err := shipped.ReadFile(n)
		if err != nil {
			panic("detect: embedded file: " + err.Error())
		}
		out = append(out, Source{Name: filepath.Base(n), Data: b, Shipped: true})
	}
	return out
}

// ReadDir reads the .yml and .yaml files of a folder and of those below it. An empty dir is none.
func ReadDir(dir string) ([]Source, error) {
	if dir == "" {
		return nil, nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("rules for detections: %w", err)
	}
	defer root.Close() //nolint:errcheck // only read
	var out []Source
	err = fs.WalkDir(root.FS(), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Ext(path) != ".yml" && filepath.Ext(path) != ".yaml" {
			return err
		}
		info, err := root.Stat(path)
		if err != nil {
			return err
		}
		if len(out) == maxFiles || info.Size() > maxFile || !info.Mode().IsRegular() {
			return fmt.Errorf("%s: want at most %d regular files of at most %d bytes", path, maxFiles, maxFile)
		}
		b, err := root.ReadFile(path)
		if err != nil {
			return err
		}
		out = append(out, Source{Name: filepath.Join(dir, path), Data: b})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("rules for detections: %w", err)
	}
	return out, nil
}

// Compile makes a set of the rules of all files. All faults are reported; there is no set with only some of the rules.
func Compile(sources []Source) (*Set, error) {
	var docs []sigma.Document
	var errs []error
	ours := map[string]bool{}
	sum := sha256.New()
	for _, src := range sources {
		d, err := sigma.Parse(src.Name, src.Data)
		errs = append(errs, err)
		docs = append(docs, d...)
		ours[src.Name] = src.Shipped
		fmt.Fprintf(sum, "%d\n", len(src.Data))
		sum.Write(src.Data)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("rules for detections: %w", err)
	}
	s := &Set{schema: newSchema(), id: hex.EncodeToString(sum.Sum(nil))}
	var err error
	if s.rules, err = sigma.Compile(docs, s.schema, nil); err != nil {
		return nil, fmt.Errorf("rules for detections: %w", err)
	}
	for i := range s.rules.Len() {
		d := s.rules.Rule(i)
		r := Rule{Doc: d, Techniques: techniques(d.Tags), Shipped: ours[d.File]}
		r.Effect, err = readEffect(d)
		if err == nil {
			err = s.columns(&r)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: rule %s: %w", d.File, d.Key(), err))
		}
		s.list = append(s.list, r)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("rules for detections: %w", err)
	}
	if err := s.link(); err != nil {
		return nil, fmt.Errorf("rules for detections: %w", err)
	}
	return s, nil
}

// columns resolves the fields that detections of a rule show.
func (s *Set) columns(r *Rule) error {
	for _, c := range []struct {
		names []string
		to    *[]column
	}{{r.Doc.Fields, &r.show}, {r.Effect.Subject, &r.subject}} {
		for _, n := range c.names {
			f, err := s.schema.Field(r.Doc.LogSource, n)
			if err != nil {
				return err
			}
			*c.to = append(*c.to, column{name: n, id: f.ID})
		}
	}
	if claims(r.Doc, r.Effect) && !r.Effect.UserSpace {
		return errors.New("looks at what programs claim (msg.NAME): say so with userspace: true")
	}
	return nil
}

// link checks what rules say of each other.
func (s *Set) link() error {
	var errs []error
	for i := range s.list {
		r := &s.list[i]
		for _, by := range r.Effect.FixedBy {
			if by == Boot {
				s.boot = append(s.boot, r.Doc.Key())
				continue
			}
			n, ok := s.rules.Lookup(by)
			if !ok {
				errs = append(errs, fmt.Errorf("rule %s: fixedBy %q is neither boot nor a rule", r.Doc.Key(), by))
				continue
			}
			s.list[n].fixes = append(s.list[n].fixes, i)
		}
		if feeds := s.rules.Feeds(i); feeds != nil && r.Effect.Effect == Fail && !slices.ContainsFunc(feeds, s.stamped) {
			errs = append(errs, fmt.Errorf("rule %s: fails on nothing but what programs claim", r.Doc.Key()))
		}
	}
	return errors.Join(errs...)
}

// stamped reports whether a rule looks at what the kernel stamped only; a correlation when one of its rules does.
func (s *Set) stamped(i int) bool {
	if feeds := s.rules.Feeds(i); feeds != nil {
		return slices.ContainsFunc(feeds, s.stamped)
	}
	return !s.list[i].Effect.UserSpace
}

var technique = regexp.MustCompile(`^attack\.(t[0-9]{4}(?:\.[0-9]{3})?)$`)

func techniques(tags []string) []string {
	var out []string
	for _, t := range tags {
		if m := technique.FindStringSubmatch(strings.ToLower(t)); m != nil {
			out = append(out, strings.ToUpper(m[1]))
		}
	}
	return out
}

// ID is the SHA-256 of all rules, hexadecimal.
func (s *Set) ID() string { return s.id }

// Rules returns the rules, in the order of their files.
func (s *Set) Rules() []Rule { return s.list }

// Rule returns the rule with a name or id.
func (s *Set) Rule(key string) (*Rule, bool) {
	i, ok := s.rules.Lookup(key)
	if !ok {
		return nil, false
	}
	return &s.list[i], true
}

// Silent reports whether the rule only feeds correlations.
func (s *Set) Silent(key string) bool {
	i, ok := s.rules.Lookup(key)
	return ok && s.rules.Silent(i)
}

// FixedByBoot are the names of the rules whose detections a new boot of the worker ends.
func (s *Set) FixedByBoot() []string { return slices.Clone(s.boot) }
