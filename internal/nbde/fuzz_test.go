package nbde

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// FuzzParseAsk: what is taken for a point lies on the curve, and a key gives an answer to it that lies there, too.
func FuzzParseAsk(f *testing.F) {
	var keys []*Key
	for _, c := range slices.Sorted(maps.Keys(all)) {
		k := on(f, c)
		keys = append(keys, k)
		x, y := encoded(k.public)
		for _, ask := range []string{`{"alg":"ECMR","crv":"%s","kty":"EC","x":"%s","y":"%s"}`, `{"crv":"%[1]s","kty":"EC","x":"%[3]s","y":"%[2]s"}`} {
			f.Add(fmt.Appendf(nil, ask, c, x, y))
		}
		f.Add(fmt.Appendf(nil, `{"kty":"EC","crv":"%s","x":"","y":""}`, c))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, k := range keys {
			point, err := parseAsk(b, k.Curve)
			if err != nil {
				continue
			}
			answer, err := k.Recover(point)
			if err != nil {
				t.Fatalf("parseAsk(%q): took %x, which Recover refuses: %v", b, point, err)
			}
			formed := formAnswer(answer, k.Curve)
			if again, err := parseAsk(formed, k.Curve); err != nil || !bytes.Equal(again, answer) {
				t.Errorf("the answer %s cannot be read: %v", formed, err)
			}
		}
	})
}

// FuzzParsePath: a path that is taken is made of its parts, and they are what names may be.
func FuzzParsePath(f *testing.F) {
	for _, p := range []string{"/adv", "//adv//x", "/n/worker-1/rec/abc", "/n/../rec/x", "/n//adv", "/rec/", "adv", "/n/a/n/b/adv"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		got, ok := parsePath(p)
		if !ok {
			return
		}
		var words []string
		for _, w := range strings.Split(p, "/") {
			if w != "" {
				words = append(words, w)
			}
		}
		var want []string
		if got.node != "" {
			want = append(want, verbNode, got.node)
		}
		want = append(want, got.verb)
		if got.name != "" {
			want = append(want, got.name)
		}
		if strings.Join(words, "/") != strings.Join(want, "/") || !nodeName(got.node) || got.name != "" && !keyName(got.name) {
			t.Errorf("parsePath(%q): got %+v", p, got)
		}
	})
}

// FuzzParseKey: a key that is taken is whole: it can be written and read again.
func FuzzParseKey(f *testing.F) {
	b, err := key(f, Exchange).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"alg":"ES512"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParseKey(b)
		if err != nil {
			return
		}
		again, err := k.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if l, err := ParseKey(again); err != nil || l.Thumbprint != k.Thumbprint {
			t.Errorf("ParseKey(%s): %v", again, err)
		}
	})
}
