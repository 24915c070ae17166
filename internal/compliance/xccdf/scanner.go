package xccdf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Limits on documents; beyond them they are refused.
const (
	MaxDocument   = 256 << 20 // bytes of a file that Extract reads
	MaxTestResult = 4 << 20   // bytes of a TestResult
	MaxDepth      = 128       // elements within each other
	MaxRules      = 20_000    // rule results of a TestResult
	maxToken      = 1 << 20   // bytes of a tag, a comment or an instruction
	firstWindow   = 64 << 10  // bytes that are looked at at a time
)

// ErrMalformed is wrapped by every error on a document that is no well-formed XML, or more of it than is taken.
var ErrMalformed = errors.New("malformed XML")

// kind is what a token is.
type kind uint8

const (
	text  kind = iota // character data, maybe a part of it
	cdata             // content of a CDATA section
	start             // start tag
	empty             // tag of an element without content
	end               // end tag
	other             // comment or processing instruction
)

// token is one piece of markup, or of text between two.
type token struct {
	kind  kind
	name  []byte // of tags, with its prefix
	attrs []byte // of start and empty tags: what stands behind the name
	raw   []byte // the whole; of CDATA what is within
}

// scanner cuts XML into tokens and checks that elements nest. It knows no document types: a DOCTYPE, and with it every entity that is not
// one of the five, is refused. Tokens are valid until the next one.
type scanner struct {
	r     io.Reader // nil: all is in buf
	buf   []byte
	pos   int
	base  int64 // bytes before buf
	eof   bool
	names []byte // open elements, one after the other
	ends  []int  // where each one ends in names
	root  bool   // the root element was there
}

func newScanner(r io.Reader) *scanner { return &scanner{r: r, buf: make([]byte, 0, firstWindow)} }

func scanBytes(b []byte) *scanner { return &scanner{buf: b, eof: true} }

func (s *scanner) fault(format string, a ...any) error {
	return fmt.Errorf("%w at byte %d: %w", ErrMalformed, s.base+int64(s.pos), fmt.Errorf(format, a...))
}

// fill brings more bytes behind those that are not used yet.
func (s *scanner) fill() error {
	if s.eof {
		return nil
	}
	if s.pos > 0 {
		s.base += int64(s.pos)
		s.buf = s.buf[:copy(s.buf, s.buf[s.pos:])]
		s.pos = 0
	}
	if len(s.buf) == cap(s.buf) {
		if cap(s.buf) > maxToken {
			return s.fault("a piece of markup is longer than %d bytes", maxToken)
		}
		s.buf = append(make([]byte, 0, 2*cap(s.buf)), s.buf...)
	}
	if s.base > MaxDocument {
		return s.fault("the document is longer than %d bytes", MaxDocument)
	}
	n, err := s.r.Read(s.buf[len(s.buf):cap(s.buf)])
	s.buf = s.buf[:len(s.buf)+n]
	if errors.Is(err, io.EOF) {
		s.eof, err = true, nil
	}
	return err
}

// next returns the next token; io.EOF behind the last one.
func (s *scanner) next() (token, error) {
	for s.pos == len(s.buf) && !s.eof {
		if err := s.fill(); err != nil {
			return token{}, err
		}
	}
	rest := s.buf[s.pos:]
	if len(rest) == 0 {
		if len(s.ends) > 0 || !s.root {
			return token{}, s.fault("the document ends in the middle")
		}
		return token{}, io.EOF
	}
	if rest[0] != '<' {
		n := bytes.IndexByte(rest, '<')
		if n < 0 {
			n = len(rest)
		}
		t := token{kind: text, raw: rest[:n]}
		if len(s.ends) == 0 && len(bytes.TrimLeft(bytes.TrimPrefix(t.raw, []byte("\ufeff")), " \t\r\n")) > 0 {
			return token{}, s.fault("text outside of the root element")
		}
		s.pos += n
		return t, nil
	}
	return s.markup()
}

// markup reads what begins with '<'.
func (s *scanner) markup() (token, error) {
	head, err := s.peek(len("<![CDATA["))
	if err != nil {
		return token{}, err
	}
	switch {
	case bytes.HasPrefix(head, []byte("<!--")):
		return s.until(other, "<!--", "-->")
	case bytes.HasPrefix(head, []byte("<![CDATA[")):
		if len(s.ends) == 0 {
			return token{}, s.fault("text outside of the root element")
		}
		return s.until(cdata, "<![CDATA[", "]]>")
	case bytes.HasPrefix(head, []byte("<?")):
		return s.instruction()
	case bytes.HasPrefix(head, []byte("<!")):
		return token{}, s.fault("document types and entities are not taken")
	}
	return s.tag()
}

// peek returns the next n bytes, fewer at the end of the document.
func (s *scanner) peek(n int) ([]byte, error) {
	for len(s.buf)-s.pos < n && !s.eof {
		if err := s.fill(); err != nil {
			return nil, err
		}
	}
	return s.buf[s.pos:min(s.pos+n, len(s.buf))], nil
}

// until reads a token between two marks.
func (s *scanner) until(k kind, open, closing string) (token, error) {
	for from := len(open); ; {
		rest := s.buf[s.pos:]
		if i := bytes.Index(rest[min(from, len(rest)):], []byte(closing)); i >= 0 {
			n := from + i
			t := token{kind: k, raw: rest[len(open):n]}
			s.pos += n + len(closing)
			return t, nil
		}
		if s.eof {
			return token{}, s.fault("%s without %s", open, closing)
		}
		from = max(len(open), len(rest)-len(closing)+1)
		if err := s.fill(); err != nil {
			return token{}, err
		}
	}
}

// instruction reads a processing instruction. Only UTF-8 is taken: in another encoding the same bytes say something else.
func (s *scanner) instruction() (token, error) {
	t, err := s.until(other, "<?", "?>")
	if err != nil {
		return t, err
	}
	if bytes.HasPrefix(t.raw, []byte("xml ")) {
		lower := bytes.ToLower(t.raw)
		if i := bytes.Index(lower, []byte("encoding")); i >= 0 && !bytes.Contains(lower[i:], []byte("utf-8")) {
			return t, s.fault("want UTF-8, the document says %.40q", t.raw)
		}
	}
	return t, nil
}

// tag reads a start or end tag.
func (s *scanner) tag() (token, error) {
	quote := byte(0)
	for i := 1; ; i++ {
		if s.pos+i == len(s.buf) {
			if s.eof {
				return token{}, s.fault("the document ends in a tag")
			}
			if err := s.fill(); err != nil {
				return token{}, err
			}
			i--
			continue
		}
		switch c := s.buf[s.pos+i]; {
		case c == '<':
			return token{}, s.fault("'<' within a tag")
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '>':
			return s.opened(s.buf[s.pos : s.pos+i+1])
		}
	}
}

// opened takes a whole tag apart.
func (s *scanner) opened(raw []byte) (token, error) {
	t := token{kind: start, raw: raw}
	body := raw[1 : len(raw)-1]
	switch {
	case len(body) > 0 && body[0] == '/':
		t.kind, body = end, body[1:]
	case len(body) > 0 && body[len(body)-1] == '/':
		t.kind, body = empty, body[:len(body)-1]
	}
	n := bytes.IndexAny(body, " \t\r\n")
	if n < 0 {
		n = len(body)
	}
	t.name, t.attrs = body[:n], body[n:]
	if len(t.name) == 0 || bytes.ContainsAny(t.name, "\"'=/&!?") {
		return t, s.fault("a tag without a name")
	}
	if err := s.nest(t); err != nil {
		return t, err
	}
	s.pos += len(raw)
	return t, nil
}

// nest keeps the open elements.
func (s *scanner) nest(t token) error {
	if t.kind == end {
		n := len(s.ends)
		if n == 0 || len(bytes.TrimSpace(t.attrs)) > 0 || !bytes.Equal(t.name, s.top()) {
			return s.fault("</%.40s> closes nothing that is open", t.name)
		}
		s.names = s.names[:len(s.names)-len(t.name)]
		s.ends = s.ends[:n-1]
		return nil
	}
	if len(s.ends) == 0 && s.root {
		return s.fault("a second root element")
	}
	s.root = true
	if t.kind == empty {
		return nil
	}
	if len(s.ends) == MaxDepth {
		return s.fault("elements are nested deeper than %d", MaxDepth)
	}
	s.names = append(s.names, t.name...)
	s.ends = append(s.ends, len(s.names))
	return nil
}

// top is the name of the innermost open element.
func (s *scanner) top() []byte { return s.named(len(s.ends)) }

// named is the name of the open element at a depth, which counts from 1; empty at 0.
func (s *scanner) named(n int) []byte {
	if n == 0 {
		return nil
	}
	from := 0
	if n > 1 {
		from = s.ends[n-2]
	}
	return s.names[from:s.ends[n-1]]
}
