package render

import (
	"fmt"
	"io"
	"strings"
)

// cell is plain text and how to draw it.
type cell struct {
	text string
	draw func(string) string
}

func plain(text string) cell { return cell{text: text} }

// row is a line of a table; note, when there is one, stands below it.
type row struct {
	cells []cell
	note  string
}

// table draws rows below headings. Columns are as wide as their widest cell; the last one takes the rest of the width and is cut.
func (s Style) table(w io.Writer, heads []string, rows []row) {
	widths := make([]int, len(heads))
	for i, h := range heads {
		widths[i] = columns(h)
	}
	for _, r := range rows {
		for i, c := range r.cells {
			widths[i] = max(widths[i], columns(c.text))
		}
	}
	last := len(heads) - 1
	used := 0
	for _, n := range widths[:last] {
		used += n + 2
	}
	widths[last] = max(min(widths[last], s.width()-used), columns(heads[last]), 8)
	head := make([]cell, len(heads))
	for i, h := range heads {
		head[i] = cell{text: strings.ToUpper(h), draw: s.Dim}
	}
	s.line(w, widths, row{cells: head})
	for _, r := range rows {
		s.line(w, widths, r)
	}
}

func (s Style) line(w io.Writer, widths []int, r row) {
	var b strings.Builder
	for i, c := range r.cells {
		text := s.cut(c.text, widths[i])
		pad := strings.Repeat(" ", widths[i]-columns(text)+2)
		if i == len(r.cells)-1 {
			pad = ""
		}
		if c.draw != nil {
			text = c.draw(text)
		}
		b.WriteString(text + pad)
	}
	fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	if r.note != "" {
		fmt.Fprintln(w, r.note)
	}
}

// wrap breaks plain text into lines of at most n columns, at spaces where there are any.
func wrap(text string, n int) []string {
	n = max(n, 10)
	var lines []string
	line := ""
	flush := func() {
		if line != "" {
			lines = append(lines, line)
		}
		line = ""
	}
	for _, word := range strings.Fields(text) {
		if line != "" && columns(line)+1+columns(word) > n {
			flush()
		}
		for columns(word) > n { // a path or digest longer than a line
			flush()
			r := []rune(word)
			lines = append(lines, string(r[:n]))
			word = string(r[n:])
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	flush()
	return lines
}

// Paragraph draws text wrapped to the width, each line indented.
func (s Style) Paragraph(w io.Writer, indent int, text string) {
	for _, l := range wrap(text, s.width()-indent) {
		fmt.Fprintln(w, strings.Repeat(" ", indent)+l)
	}
}

// Field draws "label  text" with the text wrapped beside the label. Nothing is drawn for empty text.
func (s Style) Field(w io.Writer, indent int, label, text string) {
	const labelWidth = 10
	for i, l := range wrap(text, s.width()-indent-labelWidth) {
		if i > 0 {
			label = ""
		}
		pad := strings.Repeat(" ", max(1, labelWidth-columns(label)))
		fmt.Fprintln(w, strings.Repeat(" ", indent)+s.Dim(label)+pad+l)
	}
}

// barWidth is the width of a progress bar in columns.
const barWidth = 24

// Bar draws the progress of something long: a bar and a percentage, or the bytes so far when the whole is not known.
func (s Style) Bar(title string, done, total int64) string {
	title = s.cut(title, max(10, s.width()-barWidth-8))
	if total <= 0 {
		return fmt.Sprintf("%s %d KiB", title, done>>10)
	}
	part := min(1, float64(done)/float64(total))
	full, empty := "#", "."
	if s.Unicode {
		full, empty = "━", "─"
	}
	n := int(part * barWidth)
	return fmt.Sprintf("%s%s %3.0f%% %s", s.Accent(strings.Repeat(full, n)), s.Dim(strings.Repeat(empty, barWidth-n)), 100*part, title)
}
