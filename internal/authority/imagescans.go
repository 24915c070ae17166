package authority

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"time"

	"touchstone.dev/touchstone/internal/compliance/verdict"
	"touchstone.dev/touchstone/internal/compliance/xccdf"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
	"touchstone.dev/touchstone/internal/store"
)

// Limits on scans of images.
const (
	maxImageScans = 20_000 // that are kept
	maxImagesTold = 1000   // in one list
	maxFlawText   = 200
	// imageStatement is how long a signed statement on an image counts: whoever relies on it asks again.
	imageStatement = 10 * time.Minute
)

var (
	imageDigest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	hexSHA256   = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

func badImageReport(format string, a ...any) error {
	return refuse(http.StatusBadRequest, "image-report", "the result of the image's scan is not taken", fmt.Sprintf(format, a...),
		"send what `touchstone image scan --submit` sends, of this version")
}

// putImage takes what somebody found who scanned an image. The TestResult is read here, and must be about this image.
func (a *Authority) putImage(w http.ResponseWriter, r *http.Request, id identity) error {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, protocol.MaxImageReport))
	if err != nil {
		return err
	}
	var report protocol.ImageReport
	if err := strictJSON(b, &report); err != nil {
		return badImageReport("%v", err)
	}
	now, digest := a.now(), r.PathValue("digest")
	if err := checkImageReport(&report, digest, now); err != nil {
		return err
	}
	out := protocol.ImageResult{Manifest: report.Manifest, Config: report.Config, Platform: report.Platform, Feed: report.Feed, At: report.At.UTC(), Received: now.UTC(), By: id.name}
	if len(report.TestResult) > 0 {
		if out.Scan, err = imageScan(&report); err != nil {
			return err
		}
		if out.Scan.At.Before(out.At) {
			out.At = out.Scan.At.UTC() // as old as its oldest part
		}
	}
	kept := store.ImageScan{Manifest: out.Manifest, Config: out.Config, At: out.At}
	if out.Scan != nil {
		kept.Profile = out.Scan.Profile
	}
	if kept.Record, err = json.Marshal(&out); err != nil {
		return err
	}
	err = a.store.PutImageScan(r.Context(), kept, maxImageScans, a.act(id, "image.scan", digest, kept.Profile))
	if errors.Is(err, store.ErrUsed) {
		return refuse(http.StatusConflict, "image-report", "AIAS has a newer scan of the image by this profile", "", "scan the image again")
	}
	if err != nil {
		return err
	}
	a.log.Info("scan of an image taken", "image", digest, "profile", kept.Profile, "by", id.name)
	if err := a.stateImage(&out); err != nil {
		return err
	}
	return answer(w, out)
}

// checkImageReport checks all but the TestResult.
func checkImageReport(r *protocol.ImageReport, digest string, now time.Time) error {
	switch {
	case !imageDigest.MatchString(r.Config) || r.Manifest != "" && !imageDigest.MatchString(r.Manifest):
		return badImageReport("manifest and config: want sha256: and 64 hexadecimal digits")
	case digest != r.Manifest && (r.Manifest != "" || digest != r.Config):
		return badImageReport("it is about %s, the address about %s", r.Manifest, clip(digest, 80))
	case len(r.TestResult) == 0 && r.Feed == nil:
		return badImageReport("nothing was scanned")
	case len(r.TestResult) > 0 && !hexSHA256.MatchString(r.Content) || r.Tailoring != "" && !hexSHA256.MatchString(r.Tailoring):
		return badImageReport("content and tailoring: want a SHA-256, hexadecimal")
	case r.At.IsZero() || r.At.After(now.Add(verdict.FutureLimit)):
		return badImageReport("it is of %s, and now it is %s: are the clocks right?", r.At.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case len(r.Platform) > maxFlawText:
		return badImageReport("platform is too long")
	}
	if r.Feed == nil {
		return nil
	}
	if !hexSHA256.MatchString(r.Feed.SHA256) || r.Feed.Made.IsZero() || r.Feed.Judged <= 0 || r.Feed.Packages <= 0 || len(r.Feed.Flaws) > protocol.MaxImageFlaws {
		return badImageReport("feed: want its SHA-256, when it was made, and what it judged")
	}
	for _, f := range r.Feed.Flaws {
		if !slices.Contains(verdict.FlawSeverities, f.Severity) || f.ID == "" || len(f.ID)+len(f.Package)+len(f.Installed)+len(f.Fixed) > 4*maxFlawText {
			return badImageReport("feed: a vulnerability has no name, severity %.20q, or texts that are too long", f.Severity)
		}
	}
	return nil
}

// imageScan reads the TestResult of a report. It must be about the image: oscap writes down what it was told that it scans.
func imageScan(r *protocol.ImageReport) (*verdict.Scan, error) {
	raw, err := unzip(r.TestResult)
	if err != nil {
		return nil, badImageReport("testResult cannot be unpacked: %v", err)
	}
	parsed, err := xccdf.Parse(raw)
	if err != nil {
		return nil, badImageReport("testResult: %v", err)
	}
	id := r.Manifest
	if id == "" {
		id = r.Config
	}
	if want := protocol.ScanTargetImage(id); parsed.Fact(xccdf.FactIdentifier) != want {
		return nil, badImageReport("testResult is about %.120q, want %q", parsed.Fact(xccdf.FactIdentifier), want)
	}
	if parsed.Profile == "" || parsed.Count(xccdf.Pass, xccdf.Fail, xccdf.Fixed) == 0 {
		return nil, badImageReport("testResult names no profile, or no rule passed or failed")
	}
	s := verdict.NewScan(parsed, nil)
	s.Content, s.Tailoring = r.Content, r.Tailoring
	return s, nil
}

// stateImage signs what AIAS says of an image.
func (a *Authority) stateImage(r *protocol.ImageResult) error {
	now := a.now()
	i := result.Image{Manifest: r.Manifest, Config: r.Config, Scanned: r.At, By: r.By, Issued: now, Expires: now.Add(imageStatement)}
	if s := r.Scan; s != nil {
		i.Profile, i.Content, i.Tailoring, i.Tool, i.Passed, i.Failed = s.Profile, s.Content, s.Tailoring, s.Tool, s.Passed, s.Failed()
		i.Rules, i.Score = s.Rules, s.Score
	}
	if r.Feed != nil {
		i.FeedMade, i.Flaws, i.Found = r.Feed.Made, r.Feed.Counts(), r.Feed.Flaws
	}
	var err error
	r.Statement, err = result.SignImage(a.results, &i)
	return err
}

func (a *Authority) getImages(w http.ResponseWriter, r *http.Request, _ identity) error {
	scans, err := a.imageResults(r.Context(), "", maxImagesTold, a.now())
	if err != nil {
		return err
	}
	for i := range scans {
		one := &scans[i]
		if one.Scan != nil {
			one.Scan.Rules = nil
		}
		if one.Feed != nil {
			one.Feed.Flaws = nil
		}
	}
	return answer(w, protocol.ImageResultList{Images: scans})
}

func (a *Authority) getImage(w http.ResponseWriter, r *http.Request, _ identity) error {
	digest := r.PathValue("digest")
	if !imageDigest.MatchString(digest) {
		return refuse(http.StatusBadRequest, "image-digest", "this is no digest of an image", clip(digest, 80), "want sha256: and 64 hexadecimal digits")
	}
	scans, err := a.imageResults(r.Context(), digest, maxImagesTold, a.now())
	if err != nil {
		return err
	}
	for i := range scans {
		if err := a.stateImage(&scans[i]); err != nil {
			return err
		}
	}
	return answer(w, protocol.ImageResultList{Images: scans})
}
