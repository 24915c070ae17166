// Package imagescan scans a container image: it makes its root (package image), holds it against content by oscap (package oscap) and against a feed of
// vulnerabilities (package oval), and says what came out as AIAS takes it. Whatever could not be done is an error: it never counts as a pass.
package imagescan

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/compliance/image"
	"touchstone.dev/touchstone/internal/compliance/oscap"
	"touchstone.dev/touchstone/internal/compliance/oval"
	"touchstone.dev/touchstone/internal/compliance/verdict"
	"touchstone.dev/touchstone/internal/protocol"
)

// Request is what an image is scanned for: a profile of some content, a feed of vulnerabilities, or both.
type Request struct {
	Content, Profile string // path of a data stream, and id of a profile of it
	Tailoring        []byte
	Feeds            string        // folder
	FeedAge          time.Duration // how old a feed may be; 0: any age
	ARF, HTML        string        // paths to write to; empty: nothing
	Unpack           image.Options
	Runner           oscap.Runner
	Now              func() time.Time
}

// Outcome is what was found.
type Outcome struct {
	Report protocol.ImageReport
	Scan   *verdict.Scan // nil: no profile was asked for
	Facts  image.Facts
	Took   time.Duration
	// Notes are for whoever reads the outcome.
	Notes []string
}

// Scan scans an image.
func Scan(ctx context.Context, img *image.Image, q *Request) (*Outcome, error) {
	if q.Profile == "" && q.Feeds == "" {
		return nil, errors.New("there is nothing to scan for: name a profile, a folder of feeds, or both")
	}
	started := q.Now()
	root, err := image.Unpack(ctx, img, q.Unpack)
	if err != nil {
		return nil, err
	}
	out, err := scan(ctx, root, img, q)
	if rest := root.Close(); err == nil && rest != nil {
		out.Notes = append(out.Notes, fmt.Sprintf("the unpacked image could not be removed: %v", rest))
	}
	if err != nil {
		return nil, err
	}
	out.Took = q.Now().Sub(started)
	return out, nil
}

func scan(ctx context.Context, root *image.Root, img *image.Image, q *Request) (*Outcome, error) {
	out := &Outcome{Facts: root.Facts, Report: protocol.ImageReport{Config: img.Config.String(), Platform: img.Platform, At: q.Now().UTC()}}
	if img.Manifest.Hex != "" {
		out.Report.Manifest = img.Manifest.String()
	}
	if !root.Facts.Owned {
		out.Notes = append(out.Notes, "without root, files do not belong to whom they belong to in the image: rules on owners fail")
	}
	if q.Feeds != "" { // first: it takes seconds, and needs no oscap
		feed, err := flaws(root.Dir, q)
		if err != nil {
			return nil, err
		}
		out.Report.Feed = feed
	}
	if q.Profile == "" {
		return out, nil
	}
	found, err := q.Runner.Scan(ctx, oscap.Scan{
		Content: q.Content, Profile: q.Profile, Tailoring: q.Tailoring, Root: root.Dir, Container: true, Environment: img.Env,
		Target: protocol.ScanTargetImage(img.ID()), ARF: q.ARF, HTML: q.HTML,
	})
	if err != nil {
		return nil, err
	}
	out.Notes = append(out.Notes, found.Warnings...)
	out.Scan = verdict.NewScan(found.Result, nil)
	out.Scan.Content, out.Scan.Tailoring = found.Content, found.Tailoring
	out.Report.Content, out.Report.Tailoring = found.Content, found.Tailoring
	out.Report.TestResult, err = packed(found.TestResult)
	return out, err
}

func packed(b []byte) ([]byte, error) {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	err = errors.Join(err, w.Close()) // before what it wrote is taken
	return out.Bytes(), err
}

// flaws holds a root against the feed for its release.
func flaws(dir string, q *Request) (*protocol.ImageFeed, error) {
	codename, err := release(dir)
	if err != nil {
		return nil, err
	}
	path, err := oval.Find(q.Feeds, codename)
	if err != nil {
		return nil, err
	}
	feed, err := oval.Load(path, q.FeedAge, q.Now())
	if err != nil {
		return nil, err
	}
	r, err := feed.Evaluate(dir)
	if err != nil {
		return nil, err
	}
	if r.Undecided > 0 {
		return nil, fmt.Errorf("%s: %d definitions have tests that are not known here: evaluate it by oscap", path, r.Undecided)
	}
	if r.Judged == 0 || len(r.Findings) > protocol.MaxImageFlaws {
		return nil, fmt.Errorf("%s: %d definitions apply to the image, %d vulnerabilities were found: is the feed for this system?", path, r.Judged, len(r.Findings))
	}
	out := &protocol.ImageFeed{SHA256: feed.SHA256, Made: feed.Made.UTC(), Packages: r.Packages, Judged: r.Judged}
	for _, f := range r.Findings {
		out.Flaws = append(out.Flaws, protocol.ImageFlaw(f))
	}
	return out, nil
}

// maxRelease is how large an os-release may be, in bytes.
const maxRelease = 64 << 10

// release is the codename of a system, as its os-release says.
func release(dir string) (string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close() //nolint:errcheck // it was read
	for _, name := range []string{"etc/os-release", "usr/lib/os-release"} {
		st, err := root.Stat(name)
		if err != nil || !st.Mode().IsRegular() {
			continue
		}
		f, err := root.Open(name)
		if err != nil {
			return "", err
		}
		defer f.Close() //nolint:errcheck // it was read
		lines := bufio.NewScanner(io.LimitReader(f, maxRelease))
		for lines.Scan() {
			if v, ok := strings.CutPrefix(lines.Text(), "VERSION_CODENAME="); ok {
				return strings.Trim(v, `"' `), nil
			}
		}
	}
	return "", errors.New("the image does not say which release of which system it is (/etc/os-release, VERSION_CODENAME): no feed fits")
}
