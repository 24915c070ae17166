package oval

import "strings"

// Compare orders two versions of Debian packages: less than 0 when a is earlier.
func Compare(a, b string) int {
	ae, au, ar := cut(a)
	be, bu, br := cut(b)
	if d := number(ae, be); d != 0 {
		return d
	}
	if d := part(au, bu); d != 0 {
		return d
	}
	return part(ar, br)
}

// cut takes a version apart: [EPOCH:]UPSTREAM[-REVISION].
func cut(v string) (epoch, upstream, revision string) {
	v = strings.TrimSpace(v)
	if i := strings.IndexByte(v, ':'); i >= 0 {
		epoch, v = v[:i], v[i+1:]
	}
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		return epoch, v[:i], v[i+1:]
	}
	return epoch, v, ""
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// weight orders what is no digit: '~' before the end, the end before letters, letters before the rest.
func weight(s string) int {
	if s == "" || digit(s[0]) {
		return 0
	}
	switch c := s[0]; {
	case c == '~':
		return -1
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
		return int(c)
	default:
		return int(c) + 256
	}
}

// part compares upstream versions, or revisions: in turns text and numbers.
func part(a, b string) int {
	for a != "" || b != "" {
		for a != "" && !digit(a[0]) || b != "" && !digit(b[0]) {
			if d := weight(a) - weight(b); d != 0 {
				return d
			}
			a, b = rest(a), rest(b)
		}
		i, j := digits(a), digits(b)
		if d := number(a[:i], b[:j]); d != 0 {
			return d
		}
		a, b = a[i:], b[j:]
	}
	return 0
}

func rest(s string) string {
	if s == "" {
		return s
	}
	return s[1:]
}

func digits(s string) int {
	n := 0
	for n < len(s) && digit(s[n]) {
		n++
	}
	return n
}

// number compares numbers of any length.
func number(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}
