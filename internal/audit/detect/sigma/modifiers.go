package sigma

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"
)

// modifiers are those of one field, taken apart.
type modifiers struct {
	change []func([]string) ([]string, error) // of the values, in order

	wrapStart, wrapEnd bool // * before, * behind
	all, cased, neq    bool
	exists, ref        bool
	re                 bool
	flags              string // of re
	number             string // lt, lte, gt, gte
	cidr               bool
	expand             bool
}

// parseField takes "CommandLine|contains|all" apart.
func parseField(key string) (string, *modifiers, error) {
	words := strings.Split(key, "|")
	m := new(modifiers)
	for i, w := range words[1:] {
		if err := m.add(w); err != nil {
			return "", nil, fmt.Errorf("field %s: %w", key, err)
		}
		if w == "expand" && i > 0 {
			return "", nil, fmt.Errorf("field %s: expand comes first", key)
		}
	}
	return words[0], m, m.check(key)
}

func (m *modifiers) add(w string) error {
	switch w {
	case "contains":
		m.wrapStart, m.wrapEnd = true, true
	case "startswith":
		m.wrapEnd = true
	case "endswith":
		m.wrapStart = true
	case "all":
		m.all = true
	case "cased":
		m.cased = true
	case "neq":
		m.neq = true
	case "exists":
		m.exists = true
	case "fieldref":
		m.ref = true
	case "cidr":
		m.cidr = true
	case "expand":
		m.expand = true
	case "re":
		m.re = true
	case "i", "m", "s":
		if !m.re {
			return fmt.Errorf("modifier %q stands only behind re", w)
		}
		m.flags += w
	case "lt", "lte", "gt", "gte":
		m.number += w
	default:
		f, ok := encodings[w]
		if !ok {
			return fmt.Errorf("modifier %q is not known", w)
		}
		m.change = append(m.change, f)
	}
	return nil
}

// check refuses what cannot stand together.
func (m *modifiers) check(key string) error {
	var kinds []string
	for _, k := range []struct {
		on   bool
		name string
	}{{m.wrapStart || m.wrapEnd, "contains/startswith/endswith"}, {m.re, "re"}, {m.exists, "exists"}, {m.cidr, "cidr"}, {m.number != "", m.number}} {
		if k.on {
			kinds = append(kinds, k.name)
		}
	}
	switch {
	case len(kinds) > 1:
		return fmt.Errorf("field %s: %s exclude each other", key, strings.Join(kinds, " and "))
	case m.number != "" && !slices.Contains([]string{"lt", "lte", "gt", "gte"}, m.number):
		return fmt.Errorf("field %s: only one of lt, lte, gt, gte", key)
	case len(m.change) > 0 && (m.re || m.exists || m.cidr || m.number != "" || m.ref):
		return fmt.Errorf("field %s: encodings are for text only", key)
	case m.exists && (m.all || m.neq || m.ref || m.expand || m.cased):
		return fmt.Errorf("field %s: exists stands alone", key)
	}
	return nil
}

// encodings turn each value into the forms that it may have in an event.
var encodings = map[string]func([]string) ([]string, error){
	"windash":      windash,
	"base64":       each(func(s string) []string { return []string{base64.StdEncoding.EncodeToString([]byte(s))} }),
	"base64offset": each(base64offset),
	"wide":         each(func(s string) []string { return []string{utf16Text(s, binary.LittleEndian)} }),
	"utf16le":      each(func(s string) []string { return []string{utf16Text(s, binary.LittleEndian)} }),
	"utf16be":      each(func(s string) []string { return []string{utf16Text(s, binary.BigEndian)} }),
	"utf16":        each(func(s string) []string { return []string{"\xff\xfe" + utf16Text(s, binary.LittleEndian)} }),
}

// each encodes values without wildcards.
func each(f func(string) []string) func([]string) ([]string, error) {
	return func(in []string) (out []string, err error) {
		for _, s := range in {
			s, err := plain(s)
			if err != nil {
				return nil, err
			}
			for _, e := range f(s) {
				out = append(out, wildcards.Replace(e))
			}
		}
		return out, nil
	}
}

// wildcards escapes what would be read as a wildcard.
var wildcards = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`)

// base64offset returns what s looks like within the encoding of a longer text, for each of the three places that it may begin at: the
// characters that depend on nothing but s.
func base64offset(s string) []string {
	var out []string
	for shift := range 3 {
		enc := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat(" ", shift) + s))
		from := []int{0, 2, 3}[shift]
		to := len(enc)
		if (len(s)+shift)%3 != 0 {
			to--
		}
		if from < to {
			out = append(out, enc[from:to])
		}
	}
	return out
}

func utf16Text(s string, order binary.AppendByteOrder) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = order.AppendUint16(b, u)
	}
	return string(b)
}

var dashes = regexp.MustCompile(`(^|[\s"'])[-/–—―]`)

// windash returns the value with each kind of dash before its flags. All flags of a value take the same kind: who mixes them writes two values.
func windash(in []string) ([]string, error) {
	var out []string
	for _, s := range in {
		out = append(out, s)
		for _, d := range []string{"-", "/", "–", "—", "―"} {
			if v := dashes.ReplaceAllString(s, "${1}"+d); !slices.Contains(out, v) {
				out = append(out, v)
			}
		}
	}
	return out, nil
}

var placeholder = regexp.MustCompile(`%[A-Za-z0-9_]+%`)

// expand puts the values of placeholders in.
func expand(in []string, values map[string][]string) ([]string, error) {
	var out []string
	for _, s := range in {
		name := placeholder.FindString(s)
		if name == "" {
			out = append(out, s)
			continue
		}
		with := values[strings.Trim(name, "%")]
		if len(with) == 0 {
			return nil, fmt.Errorf("placeholder %s has no values", name)
		}
		for _, v := range with {
			more, err := expand([]string{strings.Replace(s, name, strings.ReplaceAll(v, "%", ""), 1)}, values)
			if err != nil {
				return nil, err
			}
			if out = append(out, more...); len(out) > maxValues {
				return nil, fmt.Errorf("placeholder %s makes more than %d values", name, maxValues)
			}
		}
	}
	return out, nil
}
