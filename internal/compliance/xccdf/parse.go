package xccdf

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// ErrNotResult is wrapped by every error on XML that is well-formed and no TestResult that can be relied on.
var ErrNotResult = errors.New("not a TestResult")

// parser reads one document that is wholly in memory.
type parser struct {
	*scanner
	in spaces
}

// element is a tag with its attributes.
type element struct {
	space, local string
	attrs        []attr
	leaf         bool // has no content
}

func (e *element) attr(name string) string {
	for _, a := range e.attrs {
		if a.name == name {
			return a.value
		}
	}
	return ""
}

// open makes an element of a tag.
func (p *parser) open(t token) (*element, error) {
	e := &element{leaf: t.kind == empty}
	depth := len(p.ends)
	if e.leaf {
		depth++
	}
	var err error
	if e.attrs, err = p.attributes(t.attrs); err != nil {
		return nil, err
	}
	if err := p.in.enter(p.scanner, &t, depth); err != nil {
		return nil, err
	}
	e.space, e.local = p.in.split(t.name)
	if e.leaf {
		p.in.leave(depth)
	}
	return e, nil
}

// children calls fn for each element of XCCDF within e, and skips those of other languages. fn reads the content of its element.
func (p *parser) children(e *element, fn func(*element) error) error {
	for !e.leaf {
		t, err := p.next()
		if err != nil {
			return unexpected(err)
		}
		switch t.kind {
		case end:
			p.in.leave(len(p.ends) + 1)
			return nil
		case start, empty:
			c, err := p.open(t)
			if err != nil {
				return err
			}
			if c.space != Namespace {
				err = p.skip(c)
			} else {
				err = fn(c)
			}
			if err != nil {
				return err
			}
		case text, cdata, other:
		}
	}
	return nil
}

// skip passes over the content of e.
func (p *parser) skip(e *element) error {
	if e.leaf {
		return nil
	}
	for depth := len(p.ends); len(p.ends) >= depth; {
		if _, err := p.next(); err != nil {
			return unexpected(err)
		}
	}
	p.in.leave(len(p.ends) + 1)
	return nil
}

// text returns the text within e, that of elements in it included, without white space around it.
func (p *parser) text(e *element) (string, error) {
	if e.leaf {
		return "", nil
	}
	var b strings.Builder
	for depth := len(p.ends); len(p.ends) >= depth; {
		t, err := p.next()
		if err != nil {
			return "", unexpected(err)
		}
		switch t.kind {
		case text:
			s, err := p.resolve(t.raw, false)
			if err != nil {
				return "", err
			}
			b.WriteString(s)
		case cdata:
			b.Write(t.raw)
		case start, empty, end, other:
		}
		if b.Len() > MaxTestResult {
			return "", p.fault("a text is longer than %d bytes", MaxTestResult)
		}
	}
	p.in.leave(len(p.ends) + 1)
	return strings.TrimSpace(b.String()), nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it ends in the middle", ErrMalformed)
	}
	return err
}

func wrong(format string, a ...any) error {
	return fmt.Errorf("%w: %w", ErrNotResult, fmt.Errorf(format, a...))
}

// Parse reads a document that is one TestResult, as Extract returns it.
func Parse(b []byte) (*TestResult, error) {
	if len(b) > MaxTestResult {
		return nil, wrong("%d bytes, at most %d are taken", len(b), MaxTestResult)
	}
	if !utf8.Valid(b) {
		return nil, fmt.Errorf("%w: text that is no UTF-8", ErrMalformed)
	}
	p := &parser{scanner: scanBytes(b)}
	var out *TestResult
	for {
		t, err := p.next()
		if errors.Is(err, io.EOF) {
			return out, out.validate()
		}
		if err != nil {
			return nil, err
		}
		if t.kind != start && t.kind != empty { // what else stands outside of the root says nothing
			continue
		}
		e, err := p.open(t)
		if err != nil {
			return nil, err
		}
		if e.space != Namespace || e.local != "TestResult" {
			return nil, wrong("the document is a %.60q of %.80q", e.local, e.space)
		}
		if out, err = p.testResult(e); err != nil {
			return nil, err
		}
	}
}

// validate refuses what a tool never writes, and what would make two readers see two results.
func (r *TestResult) validate() error {
	switch {
	case r.ID == "":
		return wrong("it has no id")
	case r.End.IsZero():
		return wrong("it has no end-time")
	case !r.Start.IsZero() && r.Start.After(r.End):
		return wrong("it ends before it starts")
	case len(r.Rules) == 0:
		return wrong("it has no rule results")
	}
	type key struct{ id, instance, name string }
	seen := make(map[key]bool, len(r.Rules))
	for i := range r.Rules {
		k := key{r.Rules[i].ID, r.Rules[i].Instance, ""}
		if len(r.Rules[i].Checks) > 0 {
			k.name = r.Rules[i].Checks[0].Name // of a multi-check, which has a result for each of its checks
		}
		if seen[k] {
			return wrong("rule %.120q has two results", k.id)
		}
		seen[k] = true
	}
	return nil
}

// moment reads an xs:dateTime. Older tools leave out the zone and mean local time, which nobody here knows; UTC is taken.
func moment(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, wrong("time %.40q", s)
}

func number(s string, otherwise float64) (float64, error) {
	if s == "" {
		return otherwise, nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, wrong("number %.40q", s)
	}
	return v, nil
}

func severity(s string) (Severity, error) {
	if s == "" {
		return SeverityUnknown, nil
	}
	if !slices.Contains(Severities, Severity(s)) {
		return "", wrong("severity %.40q", s)
	}
	return Severity(s), nil
}
