package xccdf

import (
	"bytes"
	"strconv"
	"unicode/utf8"
)

// attr is one attribute; value is what it says, with references resolved.
type attr struct {
	name  string // with its prefix
	value string
}

// attributes takes apart what stands behind the name in a tag.
func (s *scanner) attributes(b []byte) ([]attr, error) {
	var out []attr
	for {
		trimmed := bytes.TrimLeft(b, " \t\r\n")
		if len(trimmed) == 0 {
			return out, nil
		}
		if len(trimmed) == len(b) {
			return nil, s.fault("attributes without a space between them")
		}
		name, rest, ok := bytes.Cut(trimmed, []byte("="))
		name = bytes.TrimRight(name, " \t\r\n")
		rest = bytes.TrimLeft(rest, " \t\r\n")
		if !ok || len(name) == 0 || bytes.ContainsAny(name, " \t\r\n\"'<&") || len(rest) < 2 || (rest[0] != '"' && rest[0] != '\'') {
			return nil, s.fault("want name=\"value\"")
		}
		n := bytes.IndexByte(rest[1:], rest[0])
		if n < 0 {
			return nil, s.fault("a value without its end")
		}
		value, err := s.resolve(rest[1:1+n], true)
		if err != nil {
			return nil, err
		}
		for _, have := range out {
			if have.name == string(name) {
				return nil, s.fault("attribute %.40q is there twice", name)
			}
		}
		out = append(out, attr{string(name), value})
		b = rest[2+n:]
	}
}

// references are the entities that XML knows without a document type.
var references = map[string]string{"lt": "<", "gt": ">", "amp": "&", "quot": `"`, "apos": "'"}

// resolve replaces references in text. In a value (attribute) white space becomes spaces, as XML says.
func (s *scanner) resolve(b []byte, value bool) (string, error) {
	if !utf8.Valid(b) {
		return "", s.fault("text that is no UTF-8")
	}
	plain := true
	for _, c := range b {
		if c < 0x20 && c != '\t' && c != '\n' && c != '\r' {
			return "", s.fault("control character %#x", c)
		}
		plain = plain && c >= 0x20 && c != '&'
	}
	if plain {
		return string(b), nil
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '\r' && i+1 < len(b) && b[i+1] == '\n':
		case (c == '\r' || c == '\n' || c == '\t') && value:
			out = append(out, ' ')
		case c == '\r':
			out = append(out, '\n')
		case c == '&':
			n := bytes.IndexByte(b[i:min(len(b), i+16)], ';')
			if n < 0 {
				return "", s.fault("'&' without ';'")
			}
			r, ok := reference(string(b[i+1 : i+n]))
			if !ok {
				return "", s.fault("entity %.20q: only those of XML itself are taken", b[i:i+n+1])
			}
			out = append(out, r...)
			i += n
		default:
			out = append(out, c)
		}
	}
	return string(out), nil
}

// reference is the text of one reference, without & and ;.
func reference(name string) (string, bool) {
	if r, ok := references[name]; ok {
		return r, true
	}
	if len(name) < 2 || name[0] != '#' {
		return "", false
	}
	digits, base := name[1:], 10
	if digits[0] == 'x' {
		digits, base = digits[1:], 16
	}
	n, err := strconv.ParseUint(digits, base, 32)
	if err != nil || n > utf8.MaxRune || !isChar(rune(n)) {
		return "", false
	}
	return string(rune(n)), true
}

// isChar reports whether XML 1.0 allows a character.
func isChar(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' || r >= 0x20 && r <= 0xd7ff || r >= 0xe000 && r <= 0xfffd || r >= 0x10000
}

// scope is one declaration of a namespace.
type scope struct {
	depth  int // of the element that has it
	prefix string
	uri    string
}

// spaces are the declarations in force, innermost last.
type spaces []scope

// enter adds the declarations of a tag at depth.
func (n *spaces) enter(s *scanner, t *token, depth int) error {
	if !bytes.Contains(t.attrs, []byte("xmlns")) {
		return nil
	}
	attrs, err := s.attributes(t.attrs)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		if a.name == "xmlns" {
			*n = append(*n, scope{depth, "", a.value})
		} else if len(a.name) > 6 && a.name[:6] == "xmlns:" {
			*n = append(*n, scope{depth, a.name[6:], a.value})
		}
	}
	return nil
}

// leave drops the declarations of elements at depth or deeper.
func (n *spaces) leave(depth int) {
	for len(*n) > 0 && (*n)[len(*n)-1].depth >= depth {
		*n = (*n)[:len(*n)-1]
	}
}

// lookup returns the namespace of a prefix.
func (n spaces) lookup(prefix string) string {
	for i := len(n) - 1; i >= 0; i-- {
		if n[i].prefix == prefix {
			return n[i].uri
		}
	}
	return ""
}

// split returns namespace and local name of a tag.
func (n spaces) split(name []byte) (space, local string) {
	prefix, rest, ok := bytes.Cut(name, []byte(":"))
	if !ok {
		return n.lookup(""), string(name)
	}
	return n.lookup(string(prefix)), string(rest)
}
