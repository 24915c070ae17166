package xccdf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Namespace is that of XCCDF 1.2.
const Namespace = "http://checklists.nist.gov/xccdf/1.2"

// Errors of Extract beside malformed XML.
var (
	ErrNoResult   = errors.New("there is no TestResult of XCCDF 1.2 in the document")
	ErrTwoResults = errors.New("there is more than one TestResult in the document: which one counts cannot be told")
)

// Extract reads results of oscap (an ARF, XCCDF results, or a TestResult alone) and returns the one TestResult in it as a document of its own:
// its bytes as they are, and in its start tag the namespaces that were declared around it. Nothing else of the document is kept in memory.
func Extract(r io.Reader) ([]byte, error) {
	s := newScanner(r)
	var around spaces
	var found []byte
	for {
		t, err := s.next()
		if errors.Is(err, io.EOF) {
			if found == nil {
				return nil, ErrNoResult
			}
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		switch t.kind {
		case start, empty:
			depth := len(s.ends)
			if t.kind == empty {
				depth++
			}
			if err := around.enter(s, &t, depth); err != nil {
				return nil, err
			}
			if bytes.HasSuffix(t.name, []byte("TestResult")) {
				if space, local := around.split(t.name); local == "TestResult" && space == Namespace {
					if found != nil {
						return nil, ErrTwoResults
					}
					if found, err = s.copyResult(&t, around, depth); err != nil {
						return nil, err
					}
					around.leave(depth)
					continue
				}
			}
			if t.kind == empty {
				around.leave(depth)
			}
		case end:
			around.leave(len(s.ends) + 1)
		case text, cdata, other:
		}
	}
}

// copyResult returns the element that t opens, which stands at depth.
func (s *scanner) copyResult(t *token, around spaces, depth int) ([]byte, error) {
	out := append([]byte("<"), t.name...)
	for i := len(around) - 1; i >= 0; i-- { // the innermost declaration of each prefix, when the tag has none of its own
		d := around[i]
		inner := slices.ContainsFunc(around[i+1:], func(o scope) bool { return o.prefix == d.prefix })
		if inner || d.depth == depth || d.uri == "" {
			continue
		}
		name := "xmlns"
		if d.prefix != "" {
			name += ":" + d.prefix
		}
		out = fmt.Appendf(out, ` %s="%s"`, name, escape(d.uri))
	}
	out = append(out, t.raw[1+len(t.name):]...)
	if t.kind == empty {
		return out, nil
	}
	for len(s.ends) >= depth {
		t, err := s.next()
		if err != nil {
			return nil, err
		}
		switch t.kind {
		case cdata:
			out = append(append(append(out, "<![CDATA["...), t.raw...), "]]>"...)
		case other: // comments and instructions say nothing
		case text, start, empty, end:
			out = append(out, t.raw...)
		}
		if len(out) > MaxTestResult {
			return nil, s.fault("the TestResult is longer than %d bytes", MaxTestResult)
		}
	}
	return out, nil
}

// escape writes text so that it can stand in an attribute.
func escape(s string) string {
	var b bytes.Buffer
	for _, r := range s {
		switch r {
		case '<':
			b.WriteString("&lt;")
		case '&':
			b.WriteString("&amp;")
		case '"':
			b.WriteString("&quot;")
		case '\n', '\t', '\r':
			fmt.Fprintf(&b, "&#%d;", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
