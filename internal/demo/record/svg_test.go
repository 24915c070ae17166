package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestAnimate(t *testing.T) {
	text := "\n  \x1b[1mTitle <&>\x1b[0m\n\x1b[2m──\x1b[0m\x1b[1m 1  Act \x1b[0m\n w  \x1b[31m✗ falls\x1b[0m after\n"
	acts := frames(text)
	if len(acts) != 2 || len(acts[1]) != 2 {
		t.Fatalf("frames: got %q, want an opening and one act of two lines", acts)
	}
	svg := string(animate(acts))
	if strings.ContainsRune(svg, 0x1b) {
		t.Error("animate: an escape character is left")
	}
	for _, want := range []string{`class="b">Title &lt;&amp;&gt;<`, `class="r">✗ falls<`, `>after<`, "@keyframes k1"} {
		if !strings.Contains(svg, want) {
			t.Errorf("animate: no %q in\n%s", want, svg)
		}
	}
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("animate: no well-formed XML: %v", err)
		}
	}
}
