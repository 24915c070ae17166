package sigma

import (
	"bytes"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// value is one value of a field: as it is, and in lower case once somebody asked.
type value struct {
	raw []byte
	low []byte
}

// lower returns b in lower case; b itself when it has no capitals.
func lower(b []byte) []byte {
	for _, c := range b {
		if c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			return bytes.Map(unicode.ToLower, b)
		}
	}
	return b
}

func (v *value) lowered() []byte {
	if v.low == nil {
		v.low = lower(v.raw)
	}
	return v.low
}

// shape is what a pattern comes to.
type shape uint8

const (
	exact    shape = iota
	prefix         // text*
	suffix         // *text
	contains       // *text*
	glob           // anything else
)

// The wildcards of a parsed pattern, as runes that no text has.
const (
	star     = rune(utf8.MaxRune + 1)
	question = rune(utf8.MaxRune + 2)
)

// pattern is a value of a rule with its wildcards.
type pattern struct {
	shape shape
	cased bool
	text  []byte // for all but glob
	glob  []rune
}

// split parses wildcards and escapes: \* and \? are the characters, \\ before a wildcard or another backslash is one backslash, any other
// backslash is itself.
func split(s string) []rune {
	var out []rune
	r := []rune(s)
	for i := 0; i < len(r); i++ {
		switch {
		case r[i] == '\\' && i+1 < len(r) && (r[i+1] == '*' || r[i+1] == '?' || r[i+1] == '\\'):
			i++
			out = append(out, r[i])
		case r[i] == '*':
			if len(out) == 0 || out[len(out)-1] != star {
				out = append(out, star)
			}
		case r[i] == '?':
			out = append(out, question)
		default:
			out = append(out, r[i])
		}
	}
	return out
}

// plain returns the text of a value that may not have wildcards.
func plain(s string) (string, error) {
	var b strings.Builder
	for _, r := range split(s) {
		if r == star || r == question {
			return "", errors.New("wildcards cannot be encoded: escape them")
		}
		b.WriteRune(r)
	}
	return b.String(), nil
}

func isWild(r rune) bool { return r == star || r == question }

// compilePattern makes a pattern of what split returned.
func compilePattern(p []rune, cased bool) *pattern {
	out := &pattern{cased: cased}
	if !cased {
		for i, r := range p {
			if !isWild(r) {
				p[i] = unicode.ToLower(r)
			}
		}
	}
	from, to := 0, len(p)
	if to > 0 && p[0] == star {
		from, out.shape = 1, suffix
	}
	if to > from && p[to-1] == star {
		to--
		if out.shape == suffix {
			out.shape = contains
		} else {
			out.shape = prefix
		}
	}
	for _, r := range p[from:to] {
		if isWild(r) {
			out.shape, out.glob = glob, p
			return out
		}
	}
	out.text = []byte(string(p[from:to]))
	return out
}

func (p *pattern) match(v *value) bool {
	b := v.raw
	if !p.cased {
		b = v.lowered()
	}
	switch p.shape {
	case exact:
		return bytes.Equal(b, p.text)
	case prefix:
		return bytes.HasPrefix(b, p.text)
	case suffix:
		return bytes.HasSuffix(b, p.text)
	case contains:
		return bytes.Contains(b, p.text)
	}
	return globbed(p.glob, b)
}

// globbed matches with one point to return to: no recursion on hostile text.
func globbed(p []rune, b []byte) bool {
	i, k, back, mark := 0, 0, -1, 0
	for k < len(b) {
		r, n := utf8.DecodeRune(b[k:])
		switch {
		case i < len(p) && p[i] == star:
			back, mark = i, k
			i++
		case i < len(p) && (p[i] == question || p[i] == r):
			i, k = i+1, k+n
		case back >= 0:
			_, n := utf8.DecodeRune(b[mark:])
			mark += n
			i, k = back+1, mark
		default:
			return false
		}
	}
	for i < len(p) && p[i] == star {
		i++
	}
	return i == len(p)
}
