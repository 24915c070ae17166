package rules

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// ErrRule is wrapped by errors about text that is no audit rule.
var ErrRule = errors.New("not an audit rule")

// Rule is one rule as auditctl takes it.
type Rule struct {
	Args []string // as auditctl is called
	Key  string
	Path string // that it watches, "" for others
	File string // of the shipped set, "" for a loaded rule
	Line int
}

// String returns the rule as it stands in a file.
func (r Rule) String() string { return strings.Join(r.Args, " ") }

// maxWords bounds the words of one rule: the kernel takes 64 fields.
const maxWords = 200

// ParseRule reads one rule: `-w PATH -p PERM -k KEY` or `-a ACTION,LIST -S CALLS -F FIELD ...`. Errors wrap ErrRule.
func ParseRule(line string) (Rule, error) {
	r := Rule{Args: strings.Fields(line)}
	if len(r.Args) < 2 || len(r.Args) > maxWords {
		return r, fmt.Errorf("%w: %.100q", ErrRule, line)
	}
	m, err := r.meaning()
	if err != nil {
		return r, err
	}
	r.Key, r.Path = m.key, m.path
	return r, nil
}

// meaning is a rule taken apart.
type meaning struct {
	list, action string
	calls        []string
	fields       []string
	key, path    string
}

// Meaning returns a text that is the same for all ways to write the rule: auditctl lists rules otherwise than they were given (-w for a
// path with perm, hexadecimal numbers, -1 for unset, calls in order of their numbers).
func (r Rule) Meaning() string {
	m, err := r.meaning()
	if err != nil {
		return r.String()
	}
	slices.Sort(m.calls)
	slices.Sort(m.fields)
	return fmt.Sprintf("%s,%s calls=%s %s key=%s", m.action, m.list, strings.Join(m.calls, ","), strings.Join(m.fields, " "), m.key)
}

func (r Rule) meaning() (meaning, error) {
	var m meaning
	for i := 0; i < len(r.Args); i += 2 {
		flag := r.Args[i]
		if i+1 >= len(r.Args) {
			return m, fmt.Errorf("%w: %s lacks its value in %q", ErrRule, flag, r.String())
		}
		if err := m.take(flag, r.Args[i+1]); err != nil {
			return m, fmt.Errorf("%w in %q", err, r.String())
		}
	}
	if m.list == "" {
		return m, fmt.Errorf("%w: neither -a nor -w in %q", ErrRule, r.String())
	}
	return m, nil
}

func (m *meaning) take(flag, value string) error {
	switch flag {
	case "-w":
		m.list, m.action = "exit", "always"
		return m.field("path=" + value)
	case "-p":
		return m.field("perm=" + value)
	case "-k":
		return m.field("key=" + value)
	case "-a", "-A":
		a, b, ok := strings.Cut(value, ",")
		if !ok {
			return fmt.Errorf("%w: list %q", ErrRule, value)
		}
		if b == "always" || b == "never" { // either order is allowed
			a, b = b, a
		}
		m.action, m.list = a, b
	case "-S":
		for call := range strings.SplitSeq(value, ",") {
			if call != "all" {
				m.calls = append(m.calls, call)
			}
		}
	case "-F", "-C":
		return m.field(value)
	default:
		return fmt.Errorf("%w: option %q", ErrRule, flag)
	}
	return nil
}

// operators, longest first.
var operators = []string{"!=", ">=", "<=", "&=", "=", ">", "<", "&"}

func (m *meaning) field(text string) error {
	name, op, value := "", "", ""
	at := len(text)
	for _, o := range operators {
		if i := strings.Index(text, o); i > 0 && i < at {
			at, op = i, o
		}
	}
	if op == "" || at+len(op) >= len(text) {
		return fmt.Errorf("%w: field %q", ErrRule, text)
	}
	name, value = text[:at], text[at+len(op):]
	switch name {
	case "key":
		m.key = value
		return nil
	case "path", "dir": // auditctl finds out itself which of them -w means
		value = path.Clean(value)
		m.path = value
		name = "path"
	case "exe":
		value = path.Clean(value)
	case "perm":
		letters := strings.Split(value, "")
		slices.Sort(letters)
		value = strings.Join(letters, "")
	case "auid", "uid", "euid", "sessionid":
		if value == "unset" || value == "4294967295" {
			value = "-1"
		}
	case "a0", "a1", "a2", "a3":
		if n, err := strconv.ParseUint(value, 0, 64); err == nil {
			value = strconv.FormatUint(n, 10)
		}
	}
	m.fields = append(m.fields, name+op+value)
	return nil
}

// without returns the arguments that take the rule out again.
func (r Rule) without() []string {
	args := slices.Clone(r.Args)
	for i, a := range args {
		switch a {
		case "-a", "-A":
			args[i] = "-d"
		case "-w":
			args[i] = "-W"
		}
	}
	return args
}

// first reports whether the rule must stand before others: the kernel takes the first that matches.
func (r Rule) first() bool {
	return slices.ContainsFunc(r.Args, func(a string) bool { return strings.HasPrefix(a, "never,") || strings.HasSuffix(a, ",never") })
}
