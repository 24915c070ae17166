package protocol

import (
	"strings"
	"testing"
)

// TestProblemIsFitForATerminal: what another program says is shown without what moves a cursor, and bounded.
func TestProblemIsFitForATerminal(t *testing.T) {
	p := &Problem{Title: "no\x1b[2J", Detail: "a\tb\r\nc\xff\u202e", Remedy: strings.Repeat("x", 1<<20)}
	got := p.Error()
	if want := "no[2J: a b \nc ("; !strings.HasPrefix(got, want) || len(got) > 3*maxLine {
		t.Errorf("Error(): got %d bytes that begin %.40q, want %q and at most %d", len(got), got, want, 3*maxLine)
	}
}
