// Package oscap runs the installed OpenSCAP over a host, or over the root of an image or container, and says what it found or why that cannot be
// relied on.
//
// OpenSCAP tells many failures by no more than a line on stderr: Debian 12's 1.3.7 takes each package for absent when it cannot open the package
// database (which some settings of apt do), and content for another system passes because nothing of it applies. So a scan is good only when
// the canary (package and file tests with known answers, in the same surroundings) sings right, nothing was said to be an error, oscap's
// progress and its results agree, and at least one rule was judged; else Scan returns an *Error. Never is an error a pass.
//
// Symbolic links of a root that lead out of it (absolute ones do, for oscap) are replaced, in an overlay, by links to the place inside.
//
// oscap runs in a mount namespace of its own (and, for roots of images, a network namespace): the root is mounted read-only and without leave
// to execute, since 1.3.7 otherwise runs the image's own /usr/bin/dpkg as root and writes caches of 72 MB into the image. apt's configuration is
// one that we give. The process has the lowest priority, a limit on time, memory and file sizes, and dies with its parent; one runs at a time.
//
// Limits: root with CAP_SYS_ADMIN is needed. Content is an SCAP source data stream. Packages are read by oscap from dpkg's status file or an
// rpm database; a root that keeps them otherwise (apk, distroless) is refused.
package oscap

import (
	"context"
	"fmt"
	"time"

	"touchstone.dev/touchstone/internal/compliance/xccdf"
)

// Defaults of limits.
const (
	DefaultTime   = 10 * time.Minute
	DefaultMemory = 4 << 30 // bytes of address space; a scan by ssg content has about 400 MB resident
)

// Runner runs oscap. The zero value is usable.
type Runner struct {
	Program string        // path; empty: oscap where programs are
	Time    time.Duration // for one scan; 0: DefaultTime
	Memory  uint64        // bytes of address space; 0: DefaultMemory
	// HostRoot is where the host's files are when the caller runs in a container ("/host"): the host's own oscap is run, in there. Empty or
	// "/": the caller runs on the host.
	HostRoot string
	// Progress is called with each rule as it is judged, and how many have been.
	Progress func(rule string, outcome xccdf.Outcome, done int)
}

// Scan says what to evaluate.
type Scan struct {
	Content   string // path of a source data stream, or content.Name: the baseline
	Profile   string // id of a profile, of the tailoring when there is one
	Tailoring []byte // XCCDF Tailoring; nil: none
	// Root is the root of an image or container; empty: the host that runs. It is not written to.
	Root string
	// Container says that Root is that of a container or image, so that rules for machines do not apply: oscap finds the marker
	// /run/.containerenv, in an overlay.
	Container   bool
	Environment []string // of the image, NAME=value
	Target      string   // name of the target in the result, such as "oci://name@sha256:..."
	ARF         string   // path for the ARF; empty: none is written
	HTML        string   // path for the report; empty: none is written
}

// Outcome is what a good scan found.
type Outcome struct {
	TestResult []byte // the element, as a document of its own
	Result     *xccdf.TestResult
	Content    string // SHA-256, hexadecimal
	Tailoring  string // SHA-256, hexadecimal; empty: none
	Version    string // of oscap
	Took       time.Duration
	MaxRSS     int64 // bytes
	Warnings   []string
	Catalogue  *xccdf.Catalogue // of the content
}

// Kind is why a scan is no result.
type Kind string

// The kinds of errors.
const (
	NoTool        Kind = "no-tool"        // oscap is not installed
	NoRights      Kind = "no-rights"      // namespaces or mounts are not allowed
	BadContent    Kind = "bad-content"    // the content cannot be read
	NoProfile     Kind = "no-profile"     // the content does not have the profile
	BadTailoring  Kind = "bad-tailoring"  // oscap does not take the tailoring
	BadRoot       Kind = "bad-root"       // the root cannot be read, or has links that cannot be kept inside
	Packages      Kind = "packages"       // oscap cannot read the packages of this root
	CanaryDied    Kind = "canary"         // tests with known answers got others
	ToolError     Kind = "tool-error"     // oscap said that something failed
	Timeout       Kind = "timeout"        //
	BadOutput     Kind = "bad-output"     // no results, truncated ones, or others than oscap reported
	NothingJudged Kind = "nothing-judged" // no rule applies: content for another system
)

// Error is a scan that came to no result. It never counts as a pass.
type Error struct {
	Kind Kind
	Text string // for people, says what to do
}

// Error returns the text with its kind.
func (e *Error) Error() string { return fmt.Sprintf("oscap: %s (%s)", e.Text, e.Kind) }

func failed(kind Kind, format string, a ...any) *Error {
	return &Error{Kind: kind, Text: fmt.Sprintf(format, a...)}
}

// one is held while oscap runs: two at a time would take the memory of four.
var one = make(chan struct{}, 1)

// Scan evaluates. The error is an *Error, or that of ctx.
func (r *Runner) Scan(ctx context.Context, s Scan) (*Outcome, error) {
	select {
	case one <- struct{}{}:
		defer func() { <-one }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	limit := r.Time
	if limit == 0 {
		limit = DefaultTime
	}
	timed, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	started := time.Now()
	out, err := r.scan(timed, &s)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case timed.Err() != nil:
		return nil, failed(Timeout, "the scan took longer than %s and was ended", limit)
	case err != nil:
		return nil, err
	}
	out.Took = time.Since(started)
	return out, nil
}

// scan does the steps.
func (r *Runner) scan(ctx context.Context, s *Scan) (*Outcome, error) {
	w, err := r.prepare(s)
	if err != nil {
		return nil, err
	}
	defer w.remove()
	var out *Outcome
	err = onOwnThread(func() error {
		if err := w.isolate(); err != nil {
			return err
		}
		if err := w.sing(ctx); err != nil {
			return err
		}
		out, err = w.evaluate(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
