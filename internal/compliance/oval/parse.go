package oval

import (
	"bufio"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Bounds of a feed.
const (
	maxDefinitions = 500_000
	maxParts       = 4_000_000 // tests, objects, states and criteria together
	maxDepth       = 64        // of elements
	maxToken       = 4 << 20   // bytes of one tag or text
	maxText        = 4096      // bytes of what is kept
)

// parser reads a feed once, from the front. What refers to something is resolved at the end: definitions come before their tests.
type parser struct {
	d     *xml.Decoder
	in    *rationed
	path  []string
	parts int
	feed  *Feed
	text  strings.Builder
	keep  bool // the text of the element that is open

	def      *definition
	broken   bool // the definition has something that is not known
	criteria []*node

	tests           map[string]*raw
	objects, states map[string]*raw
	now             *raw
}

// raw is a test, object or state as it is written: fields by name.
type raw struct {
	element string
	bad     bool
	fields  map[string]field
}

type field struct{ text, operation, datatype string }

// rationed gives so many bytes for each token: a text without end is refused before it is kept.
type rationed struct {
	r           io.Reader
	left, total int64
}

func (r *rationed) Read(p []byte) (int, error) {
	if r.left <= 0 || r.total <= 0 {
		return 0, fmt.Errorf("the feed has more than %d bytes, or more than %d in one piece", int64(maxFeed), maxToken)
	}
	n, err := r.r.Read(p[:min(int64(len(p)), r.left)])
	r.left, r.total = r.left-int64(n), r.total-int64(n)
	return n, err
}

// Parse reads a feed.
func Parse(in io.Reader) (*Feed, error) {
	ration := &rationed{r: in, left: maxToken, total: maxFeed}
	p := &parser{d: xml.NewDecoder(bufio.NewReaderSize(ration, 1<<16)), in: ration, feed: &Feed{},
		tests: map[string]*raw{}, objects: map[string]*raw{}, states: map[string]*raw{}}
	for {
		ration.left = maxToken
		t, err := p.d.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = p.token(t)
		}
		if err != nil {
			return nil, fmt.Errorf("the feed, byte %d: %w", p.d.InputOffset(), err)
		}
	}
	if len(p.path) > 0 || p.parts == 0 {
		return nil, errors.New("the feed ends too early, or is empty")
	}
	return p.feed, p.resolve()
}

func (p *parser) token(t xml.Token) error {
	switch t := t.(type) {
	case xml.StartElement:
		if len(p.path) == maxDepth {
			return errors.New("elements in too many others")
		}
		if len(p.path) == 0 && (t.Name.Local != "oval_definitions" || p.parts > 0) {
			return fmt.Errorf("it begins with %.40q, want one oval_definitions", t.Name.Local)
		}
		p.path = append(p.path, t.Name.Local)
		p.text.Reset()
		if p.parts++; p.parts > maxParts*8 {
			return errors.New("it has too many parts")
		}
		return p.start(t)
	case xml.EndElement:
		if len(p.path) == 0 || p.path[len(p.path)-1] != t.Name.Local {
			return fmt.Errorf("</%.40s> closes nothing", t.Name.Local)
		}
		p.end(t.Name.Local)
		p.path = p.path[:len(p.path)-1]
		p.keep = false
	case xml.CharData:
		if p.keep && p.text.Len()+len(t) <= maxText {
			p.text.Write(t)
		}
	case xml.Directive:
		return errors.New("it has a document type: nothing is taken from there")
	}
	return nil
}

func attr(attrs []xml.Attr, name string) string {
	for _, a := range attrs {
		if a.Name.Local == name && a.Name.Space == "" {
			return strings.Clone(a.Value)
		}
	}
	return ""
}

func (p *parser) start(t xml.StartElement) error {
	if len(p.path) < 3 {
		return nil
	}
	switch p.path[1] {
	case "generator":
		p.keep = t.Name.Local == "timestamp"
	case "definitions":
		return p.startDefinition(t)
	case "tests", "objects", "states":
		if len(p.path) == 3 {
			id := attr(t.Attr, "id")
			p.now = &raw{element: strings.Clone(t.Name.Local), fields: map[string]field{"check": {text: attr(t.Attr, "check")}, "existence": {text: attr(t.Attr, "check_existence")}}}
			into := map[string]map[string]*raw{"tests": p.tests, "objects": p.objects, "states": p.states}[p.path[1]]
			if id == "" || into[id] != nil {
				return fmt.Errorf("id %.80q is there twice, or missing", id)
			}
			into[id] = p.now
			return nil
		}
		p.startField(t)
	}
	return nil
}

func (p *parser) startDefinition(t xml.StartElement) error {
	switch t.Name.Local {
	case "definition":
		if len(p.path) != 3 || len(p.feed.definitions) == maxDefinitions {
			return fmt.Errorf("a definition out of place, or more than %d", maxDefinitions)
		}
		p.def, p.broken, p.criteria = &definition{name: attr(t.Attr, "id"), severity: "unknown", criteria: node{test: -1}}, false, nil
	case "reference":
		if p.def != nil && attr(t.Attr, "source") == "CVE" && attr(t.Attr, "ref_id") != "" {
			p.def.name = attr(t.Attr, "ref_id")
		}
	case "severity":
		p.keep = true
	case "criteria", "criterion", "extend_definition":
		return p.startCriteria(t)
	}
	return nil
}

func (p *parser) startCriteria(t xml.StartElement) error {
	if p.def == nil {
		return errors.New("criteria out of place")
	}
	n := node{test: -1, negate: attr(t.Attr, "negate") == "true", ref: attr(t.Attr, "test_ref")}
	op := attr(t.Attr, "operator")
	n.or = op == "OR"
	p.broken = p.broken || t.Name.Local == "extend_definition" || op != "" && op != "AND" && op != "OR"
	if len(p.criteria) == 0 {
		if t.Name.Local != "criteria" || p.def.criteria.kids != nil || p.def.criteria.ref != "" {
			return errors.New("a definition has other than one criteria")
		}
		p.def.criteria = n
		p.criteria = []*node{&p.def.criteria}
		return nil
	}
	up := p.criteria[len(p.criteria)-1]
	up.kids = append(up.kids, n)
	if t.Name.Local == "criteria" {
		p.criteria = append(p.criteria, &up.kids[len(up.kids)-1])
	}
	return nil
}

// startField reads a field of a test, object or state.
func (p *parser) startField(t xml.StartElement) {
	f := field{operation: attr(t.Attr, "operation"), datatype: attr(t.Attr, "datatype")}
	name := strings.Clone(t.Name.Local)
	switch {
	case p.path[1] == "tests" && len(p.path) == 4:
		f.text = attr(t.Attr, "object_ref") + attr(t.Attr, "state_ref")
	case len(p.path) != 4 || attr(t.Attr, "var_ref") != "" || attr(t.Attr, "var_check") != "":
		p.now.bad = true
	default:
		p.keep = true
	}
	if _, twice := p.now.fields[name]; twice {
		p.now.bad = true
	}
	p.now.fields[name] = f
}

func (p *parser) end(name string) {
	text := strings.TrimSpace(p.text.String())
	switch {
	case len(p.path) < 3:
	case p.path[1] == "generator" && p.keep:
		p.feed.Made, _ = time.Parse(time.RFC3339, text)
		if p.feed.Made.IsZero() {
			p.feed.Made, _ = time.Parse("2006-01-02T15:04:05", strings.SplitN(text, ".", 2)[0])
		}
	case p.path[1] == "definitions" && name == "severity" && p.def != nil:
		p.def.severity = severity(text)
	case p.path[1] == "definitions" && name == "criteria" && len(p.criteria) > 0:
		p.criteria = p.criteria[:len(p.criteria)-1]
	case p.path[1] == "definitions" && len(p.path) == 3 && p.def != nil:
		if p.broken || len(p.def.criteria.kids) == 0 {
			p.feed.Unsupported++
		} else {
			p.feed.definitions = append(p.feed.definitions, *p.def)
		}
		p.def = nil
	case (p.path[1] == "objects" || p.path[1] == "states") && len(p.path) == 4 && p.keep:
		f := p.now.fields[name]
		f.text = strings.Clone(text)
		p.now.fields[name] = f
	}
}

// severity is one of the words that are counted.
func severity(s string) string {
	switch s = strings.ToLower(s); s {
	case "critical", "high", "medium", "low":
		return s
	case "important":
		return "high"
	case "moderate":
		return "medium"
	}
	return "unknown"
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return n
}
