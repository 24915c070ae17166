// Package render draws what people see: tables of nodes, verdicts with their findings, histories. It knows no commands and does
// no I/O but writing to the writer it is given; commands and the demo share it, so that the same words stand everywhere.
//
// Everything that comes from a worker (paths, command lines, log texts) is hostile until Clean has taken the control
// characters out of it: a file name must not be able to move the cursor of the person who reads about it.
package render

import (
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/audit/shown"
)

// Style says how to draw.
type Style struct {
	Color   bool // ANSI colours
	Unicode bool // ✓ ✗ instead of letters
	Width   int  // columns; 0 means 80
}

// Bounds of the width that is drawn for.
const (
	defaultWidth = 80
	maxWidth     = 120 // longer lines read badly, however wide the terminal is
)

// StyleFor looks at a file and the environment: colours only on a terminal and without NO_COLOR (no-color.org), marks only where
// the locale is UTF-8, the width of the terminal up to 120 columns.
func StyleFor(f *os.File, getenv func(string) string) Style {
	s := Style{Unicode: utf8Locale(getenv), Width: defaultWidth}
	if f == nil || !term.IsTerminal(int(f.Fd())) {
		return s
	}
	s.Color = getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
	if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
		s.Width = min(max(w, 40), maxWidth)
	}
	return s
}

// utf8Locale follows the order of locale(7). An unset locale counts as UTF-8: terminals have been so for long.
func utf8Locale(getenv func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(getenv(name)); v != "" {
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return true
}

func (s Style) width() int {
	if s.Width <= 0 {
		return defaultWidth
	}
	return s.Width
}

// The colours, as SGR parameters.
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

func (s Style) paint(code, text string) string {
	if !s.Color || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// Bold draws text bold, when there is colour.
func (s Style) Bold(text string) string { return s.paint(bold, text) }

// Dim draws text less bright.
func (s Style) Dim(text string) string { return s.paint(dim, text) }

// Accent draws text in the one colour that means nothing but "look here".
func (s Style) Accent(text string) string { return s.paint(cyan, text) }

// Mark is the sign of a status.
func (s Style) Mark(st appraisal.Status) string {
	marks := map[appraisal.Status]string{appraisal.Pass: "ok", appraisal.Warn: "!", appraisal.Fail: "X"}
	if s.Unicode {
		marks = map[appraisal.Status]string{appraisal.Pass: "✓", appraisal.Warn: "!", appraisal.Fail: "✗"}
	}
	if m, ok := marks[st]; ok {
		return m
	}
	return "?"
}

// Status draws text in the colour of a status.
func (s Style) Status(st appraisal.Status, text string) string {
	switch st {
	case appraisal.Pass:
		return s.paint(green, text)
	case appraisal.Fail:
		return s.paint(red, text)
	}
	return s.paint(yellow, text)
}

// Clean takes out of foreign text what a terminal would obey: see shown.Clean.
func Clean(text string) string { return shown.Clean(text) }

// columns counts the columns of plain text. Wide characters count as one: names and paths of workers have none as a rule.
func columns(text string) int { return utf8.RuneCountInString(text) }

// cut shortens plain text to n columns.
func (s Style) cut(text string, n int) string {
	if columns(text) <= n {
		return text
	}
	r := []rune(text)
	dots := "..."
	if s.Unicode {
		dots = "…"
	}
	return string(r[:max(0, n-columns(dots))]) + dots
}
