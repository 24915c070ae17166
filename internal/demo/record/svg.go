package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// The geometry of the picture: characters, and pixels.
const (
	columns = 80
	charX   = 8.4
	lineY   = 19.0
	margin  = 18.0
	seconds = 9.0 // that an act stays on the screen
)

// sgr matches the colour sequences that package render writes.
var sgr = regexp.MustCompile("\x1b\\[([0-9]*)m")

// classes maps SGR parameters to style classes.
var classes = map[string]string{"1": "b", "2": "d", "31": "r", "32": "g", "33": "y", "36": "c"}

// frames cuts the screen into acts: each begins at its heading.
func frames(text string) [][]string {
	out := [][]string{nil}
	for _, line := range strings.Split(strings.Trim(text, "\n"), "\n") {
		if strings.HasPrefix(sgr.ReplaceAllString(line, ""), "── ") {
			out = append(out, nil)
		}
		out[len(out)-1] = append(out[len(out)-1], line)
	}
	return out
}

// animate draws the acts one after the other, for ever. Who shows no animation sees the first.
func animate(acts [][]string) []byte {
	most := 0
	for _, a := range acts {
		most = max(most, len(a))
	}
	width, height := columns*charX+2*margin, float64(most)*lineY+2*margin
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img" xml:space="preserve">`+"\n", width, height, width, height)
	b.WriteString("<title>touchstone demo: three workers, three attacks, verdicts with their reasons</title>\n")
	fmt.Fprintf(&b, "<style>\n%s", style)
	for i := range acts {
		from, until := 100*float64(i)/float64(len(acts)), 100*float64(i+1)/float64(len(acts))
		fmt.Fprintf(&b, "@keyframes k%d{0%%,%.2f%%{opacity:0}%.2f%%,%.2f%%{opacity:1}%.2f%%,100%%{opacity:0}}\n",
			i, max(0, from-0.01), from, until-0.01, until)
		rest := 0
		if i == 0 {
			rest = 1
		}
		fmt.Fprintf(&b, ".a%d{opacity:%d;animation:k%d %.0fs linear infinite}\n", i, rest, i, seconds*float64(len(acts)))
	}
	fmt.Fprintf(&b, "</style>\n<rect width=\"%.0f\" height=\"%.0f\" rx=\"8\" fill=\"#101418\"/>\n", width, height)
	for i, a := range acts {
		fmt.Fprintf(&b, "<g class=\"a%d\">\n", i)
		for n, line := range a {
			drawLine(&b, line, margin+float64(n+1)*lineY-5)
		}
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

const style = `text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#d5dbe1;white-space:pre}
.b{font-weight:bold;fill:#fff}.d{fill:#8b96a1}.r{fill:#ff6b6b}.g{fill:#5ad17d}.y{fill:#f0c050}.c{fill:#58c4dd}
`

// drawLine draws one line. Each run of one colour has its own place, so that no font can shift the columns.
func drawLine(b *bytes.Buffer, line string, y float64) {
	column, class := 0, ""
	run := func(text string) {
		trimmed := strings.TrimLeft(text, " ")
		if trimmed != "" {
			x := margin + charX*float64(column+len(text)-len(trimmed))
			attr := ""
			if class != "" {
				attr = fmt.Sprintf(" class=%q", class)
			}
			fmt.Fprintf(b, `<text x="%.1f" y="%.1f"%s>`, x, y, attr)
			_ = xml.EscapeText(b, []byte(strings.TrimRight(trimmed, " "))) // a buffer takes everything
			b.WriteString("</text>\n")
		}
		column += utf8.RuneCountInString(text)
	}
	at := 0
	for _, m := range sgr.FindAllStringSubmatchIndex(line, -1) {
		run(line[at:m[0]])
		class, at = classes[line[m[2]:m[3]]], m[1]
	}
	run(line[at:])
}
