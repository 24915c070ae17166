package demo

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/cli/render"
)

// readingTime is the pause after each act, unless the demo is to be fast.
const readingTime = 3 * time.Second

// teller tells the story on the screen and keeps what happened.
type teller struct {
	out   io.Writer
	style render.Style
	fast  bool
	start time.Time
	steps []Step
}

func newTeller(o Options) *teller {
	return &teller{out: o.Out, style: o.Style, fast: o.Fast, start: time.Now()}
}

func (t *teller) printf(format string, args ...any) { fmt.Fprintf(t.out, format, args...) }

// clock is the time since the beginning, as the first column shows it.
func (t *teller) clock() string {
	return t.style.Dim(fmt.Sprintf("%6.1fs", time.Since(t.start).Seconds()))
}

func (t *teller) opening() {
	t.printf("\n  %s\n\n", t.style.Bold("Touchstone: which workers can be trusted, and why"))
	t.style.Paragraph(t.out, 2, "Three workers, each with a TPM of its own, prove to AIAS how they booted and what they run. Then things happen to them.")
	t.printf("\n")
}

// note tells what happened without a verdict.
func (t *teller) note(who, what string) {
	t.printf("%s  %-10s %s\n", t.clock(), who, what)
}

// act begins a part of the story.
func (t *teller) act(n int, title, text string) {
	line := "-"
	if t.style.Unicode {
		line = "─"
	}
	title = fmt.Sprintf(" %d  %s ", n, title)
	t.printf("\n%s%s%s\n\n", t.style.Dim(strings.Repeat(line, 2)), t.style.Bold(title), t.style.Dim(strings.Repeat(line, max(2, 74-len(title)))))
	t.style.Paragraph(t.out, 2, text)
	t.printf("\n")
}

// say tells something within an act.
func (t *teller) say(text string) {
	t.printf("\n")
	t.style.Paragraph(t.out, 2, text)
	t.printf("\n")
}

func (t *teller) field(label, text string) { t.style.Field(t.out, 11, label, render.Clean(text)) }

// record keeps a verdict and tells it.
func (t *teller) record(s Step, took time.Duration, good bool) {
	text, st := "is not trusted", appraisal.Fail
	if good {
		text, st = "is trusted", appraisal.Pass
	}
	t.recordText(s, took, t.style.Status(st, t.style.Mark(st)+" "+text))
}

func (t *teller) recordText(s Step, took time.Duration, text string) {
	t.steps = append(t.steps, s)
	t.printf("%s  %-10s %s %s\n", t.clock(), s.Node, text, t.style.Dim(fmt.Sprintf("after %.2f s", took.Seconds())))
	if !s.OK {
		t.printf("         %s\n", t.style.Status(appraisal.Fail, fmt.Sprintf("this should not be: want %q, got %q", s.Want, s.Got)))
	}
}

func (t *teller) findings(list []appraisal.Finding) {
	for i := range list {
		t.printf("\n")
		t.style.Finding(t.out, &list[i])
	}
}

// table shows all workers, and lets the reader breathe.
func (s *stage) table(ctx context.Context) error {
	nodes, err := s.aias.client.Nodes(ctx)
	if err != nil {
		return err
	}
	s.printf("\n")
	s.style.Nodes(s.out, nodes, time.Now())
	if !s.fast {
		select {
		case <-time.After(readingTime):
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

func (t *teller) outcome() *Outcome {
	o := &Outcome{Steps: t.steps, OK: len(t.steps) > 0}
	for _, s := range t.steps {
		o.OK = o.OK && s.OK
	}
	return o
}

func (t *teller) closing(o *Outcome) {
	good, slowest := 0, 0.0
	for _, s := range o.Steps {
		if s.OK {
			good++
		}
		if s.Name != "enrol" {
			slowest = max(slowest, s.Millis)
		}
	}
	st, text := appraisal.Pass, "as told"
	if !o.OK {
		st, text = appraisal.Fail, "NOT as told"
	}
	t.printf("\n  %s\n\n", t.style.Status(st, fmt.Sprintf("%s %d of %d verdicts %s; the slowest change was judged after %.2f s",
		t.style.Mark(st), good, len(o.Steps), text, slowest/1000)))
}

// invite tells how to play with what is left running.
func (s *stage) invite() {
	s.printf("  %s\n\n", s.style.Bold("It is still running. In another terminal:"))
	var path []string
	if exe, err := os.Executable(); err == nil {
		if _, err := exec.LookPath("touchstone"); err != nil {
			path = []string{"export PATH=" + filepath.Dir(exe) + ":$PATH"}
		}
	}
	for _, l := range append(path,
		"export TOUCHSTONE_OPERATOR="+s.aias.bundle,
		"export "+EnvFolder+"="+s.dir,
		"touchstone nodes",
		"touchstone why worker-2",
		"touchstone history",
		"touchstone demo exec worker-3 /usr/bin/anything     # then look again",
	) {
		s.printf("    %s\n", s.style.Accent(l))
	}
	s.printf("\n  Ctrl-C ends it and clears everything away.\n")
}
