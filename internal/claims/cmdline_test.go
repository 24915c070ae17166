package claims

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestWordsAsTheKernel: a word that the kernel sees must not hide in another, and one that it does not see must not count.
func TestWordsAsTheKernel(t *testing.T) {
	for line, want := range map[string][]string{
		"quiet\xc2\xa0init=/bin/sh":      {"quiet\xc2", "init=/bin/sh"}, // the kernel takes 0xa0 for a blank
		"a\vb\fc\rd":                     {"a", "b", "c", "d"},
		`module.sig_"enforce"=1`:         {`module.sig_"enforce"=1`}, // no parameter of the kernel
		`module.sig_enforce="1"`:         {"module.sig_enforce=1"},
		`"module.sig_enforce=1"`:         {"module.sig_enforce=1"},
		`x=a" b"`:                        {`x=a" b"`},
		`"open to the end init=/bin/sh`:  {"open to the end init=/bin/sh"},
		`="x"`:                           {`="x"`},
		`"" a`:                           {"", "a"},
		`x="`:                            {"x="},
		"root=/dev/vda1 -- init=/bin/sh": {"root=/dev/vda1", "--", "init=/bin/sh"},
	} {
		if d := cmp.Diff(want, Words(line)); d != "" {
			t.Errorf("Words(%q) (-want +got):\n%s", line, d)
		}
	}
}

func TestParameters(t *testing.T) {
	for line, want := range map[string][]string{
		"a b":         {"a", "b"},
		"a -- b":      {"a"},
		`a "--" b`:    {"a"},
		"a --x b":     {"a", "--x", "b"},
		"-- a":        {},
		"a b=-- -- c": {"a", "b=--"},
	} {
		if d := cmp.Diff(want, Parameters(line)); d != "" {
			t.Errorf("Parameters(%q) (-want +got):\n%s", line, d)
		}
	}
	for word, want := range map[string]string{"ima-appraise=off": "ima_appraise=off", "root=/dev/x-y": "root=/dev/x-y", "no-kaslr": "no_kaslr", "": ""} {
		if got := ParameterName(word); got != want {
			t.Errorf("ParameterName(%q): got %q, want %q", word, got, want)
		}
	}
}

// TestWordsOfALongLine: a fact of 1 MiB costs no more than reading it.
func TestWordsOfALongLine(t *testing.T) {
	for _, line := range []string{strings.Repeat("a ", 1<<19), strings.Repeat("\"", 1<<20), strings.Repeat(" ", 1<<20), strings.Repeat("a=\"b\" ", 1<<17)} {
		if w := Words(line); slices.Contains(w, " ") {
			t.Errorf("Words(%.10q...): a blank is a word", line)
		}
	}
}
