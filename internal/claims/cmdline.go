package claims

import (
	"slices"
	"strings"
)

// Words splits a kernel command line as the kernel does (Linux, lib/cmdline.c, next_arg): at blanks outside of double quotes. Of quotes only those
// around a whole word or a whole value are taken off. A blank is what the kernel takes for one, the byte 0xa0 among them, which is half of many a
// character in UTF-8.
func Words(line string) []string {
	var out []string
	for i := 0; i < len(line); {
		if blank(line[i]) {
			i++
			continue
		}
		start, inQuotes := i, false
		for i < len(line) && (inQuotes || !blank(line[i])) {
			inQuotes = inQuotes != (line[i] == '"')
			i++
		}
		out = append(out, unquote(line[start:i]))
	}
	return out
}

// Parameters are the words that the kernel takes for its own: those before "--". It hands what follows to init.
func Parameters(line string) []string {
	w := Words(line)
	if i := slices.Index(w, "--"); i >= 0 {
		return w[:i]
	}
	return w
}

// ParameterName returns a word as the kernel compares it: '-' and '_' are the same in the name of a parameter.
func ParameterName(word string) string {
	name, value, ok := strings.Cut(word, "=")
	name = strings.ReplaceAll(name, "-", "_")
	if ok {
		return name + "=" + value
	}
	return name
}

func blank(c byte) bool { return c == 0 || c == ' ' || '\t' <= c && c <= '\r' || c == 0xa0 }

// unquote takes off the quotes around a word and around its value.
func unquote(w string) string {
	w, whole := strings.CutPrefix(w, `"`)
	if i := strings.IndexByte(w, '='); i > 0 && strings.HasPrefix(w[i+1:], `"`) {
		return w[:i+1] + strings.TrimSuffix(w[i+2:], `"`)
	}
	if whole {
		w = strings.TrimSuffix(w, `"`)
	}
	return w
}
