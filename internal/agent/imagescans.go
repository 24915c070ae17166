package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"touchstone.dev/touchstone/internal/compliance/content"
	"touchstone.dev/touchstone/internal/compliance/image"
	"touchstone.dev/touchstone/internal/compliance/imagescan"
	"touchstone.dev/touchstone/internal/compliance/oscap"
	"touchstone.dev/touchstone/internal/cri"
	"touchstone.dev/touchstone/internal/protocol"
)

// ImageScanConfig says how images that the worker has are scanned. AIAS gives each image to one worker.
type ImageScanConfig struct {
	// Content is the path of an SCAP source data stream, or content.Name; empty: no image is scanned.
	Content string `json:"content"`
	// Profile is the id of a profile of the content, or of the tailoring.
	Profile string `json:"profile"`
	// Tailoring is the path of an XCCDF tailoring; empty: none.
	Tailoring string `json:"tailoring"`
	// Feeds is a folder with feeds of vulnerabilities; empty: none are looked for.
	Feeds string `json:"feeds"`
	// Interval is the time between two looks at what images there are.
	Interval Duration `json:"interval"`
	// Timeout ends the scan of an image that takes longer.
	Timeout Duration `json:"timeout"`
	// Runtime is the CRI socket, below HostRoot; empty: wherever container runtimes have it.
	Runtime string `json:"runtime"`
	// Contents is containerd's content store, below HostRoot.
	Contents string `json:"contents"`
	// Temp is a folder, below HostRoot, to unpack images in.
	Temp string `json:"temp"`
	// MaxBytes is how large an unpacked image may be.
	MaxBytes int64 `json:"maxBytes"`
}

var defaultImageScans = ImageScanConfig{
	Interval: Duration(10 * time.Minute), Timeout: Duration(20 * time.Minute), Contents: "/var/lib/containerd/" + image.ContainerdStore, Temp: "/var/tmp", MaxBytes: 16 << 30,
}

func (c *ImageScanConfig) validate(add func(bad bool, format string, args ...any)) {
	if c.Content == "" {
		return
	}
	add(content.ProfileOr(c.Profile, c.Content, content.Image) == "", "imageScans.profile is not set: name a profile of the content (`oscap info --profiles FILE`)")
	add(c.Interval < Duration(10*time.Second), "imageScans.interval must be at least 10s")
	add(c.Timeout < Duration(time.Second), "imageScans.timeout must be at least 1s")
	add(c.Contents == "" || c.Temp == "", "imageScans: contents and temp must name folders")
	add(c.MaxBytes < 1<<20, "imageScans.maxBytes %d: want at least 1048576", c.MaxBytes)
}

// Limits of unpacking an image on a worker, beside MaxBytes.
const (
	scanFiles = 1_000_000
	scanFree  = 2 << 30 // bytes that stay free for what the worker is for
)

// imageScanner scans images that AIAS gives to this worker, one at a time, and sends what came of it.
type imageScanner struct {
	cfg  ImageScanConfig
	host string // HostRoot
	temp string
	log  *slog.Logger
	now  func() time.Time
	list func(ctx context.Context) ([]cri.Image, error)

	mu   sync.Mutex
	link Link
	wake chan struct{} // closed with the first link
	said string        // why AIAS gives nothing, once
}

func newImageScanner(cfg *Config, log *slog.Logger, now func() time.Time) *imageScanner {
	var sockets []string
	for _, s := range cri.Sockets {
		sockets = append(sockets, filepath.Join(cfg.HostRoot, s))
	}
	if r := cfg.ImageScans.Runtime; r != "" {
		sockets = []string{filepath.Join(cfg.HostRoot, strings.TrimPrefix(r, "unix://"))}
	}
	return &imageScanner{
		cfg: cfg.ImageScans, host: cfg.HostRoot, temp: filepath.Join(cfg.HostRoot, cfg.ImageScans.Temp), log: log, now: now,
		list: cri.NewFinder(sockets...).Images, wake: make(chan struct{}),
	}
}

// attested takes note of the connection, which is good now.
func (s *imageScanner) attested(link Link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		close(s.wake)
	}
	s.link = link
}

func (s *imageScanner) session() Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.link
}

// run scans until ctx ends. It begins with the first attestation: before it AIAS gives nothing.
func (s *imageScanner) run(ctx context.Context) {
	if n, err := image.Sweep(s.temp); err != nil || n > 0 {
		s.log.Info("removed what earlier scans of images left", "roots", n, "error", err)
	}
	select {
	case <-ctx.Done():
		return
	case <-s.wake:
	}
	for ctx.Err() == nil {
		if err := s.round(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("images cannot be scanned: trying again", "error", err)
		}
		sleep(ctx, jitter(time.Duration(s.cfg.Interval), 0.2))
	}
}

// round scans images until AIAS has no more for this worker.
func (s *imageScanner) round(ctx context.Context) error {
	claim, tailoring, err := s.claim()
	if err != nil {
		return err
	}
	images, err := s.list(ctx)
	if len(images) == 0 && err != nil {
		return err
	}
	have := s.scannable(images)
	for _, i := range have {
		claim.Images = append(claim.Images, i.claimed())
	}
	for range have {
		lease, err := s.session().ClaimScan(ctx, claim)
		if err != nil {
			return fmt.Errorf("ask AIAS for an image to scan: %w", err)
		}
		if lease.Image == (protocol.ClaimedImage{}) {
			if lease.Reason != s.said {
				s.log.Info("AIAS gives no image to scan", "reason", lease.Reason)
			}
			s.said = lease.Reason
			return nil
		}
		n := slices.IndexFunc(have, func(i found) bool { return i.claimed() == lease.Image })
		if n < 0 {
			return fmt.Errorf("AIAS wants image %s scanned, which was not offered", lease.Image.Manifest)
		}
		s.send(ctx, s.one(ctx, &have[n], claim.Profile, tailoring), lease.Until)
	}
	return nil
}

// claim says by what this worker scans.
func (s *imageScanner) claim() (*protocol.ScanClaim, []byte, error) {
	c := &protocol.ScanClaim{Profile: content.ProfileOr(s.cfg.Profile, s.cfg.Content, content.Image), Content: content.Digest(), Feed: s.cfg.Feeds != ""}
	if s.cfg.Content != content.Name {
		f, err := os.Open(s.cfg.Content)
		if err != nil {
			return nil, nil, fmt.Errorf("content of scans: %w", err)
		}
		defer f.Close() //nolint:errcheck // it was read
		h := sha256.New()
		if _, err := io.Copy(h, io.LimitReader(f, oscap.MaxContent+1)); err != nil {
			return nil, nil, fmt.Errorf("content of scans: %w", err)
		}
		c.Content = hex.EncodeToString(h.Sum(nil))
	}
	if s.cfg.Tailoring == "" {
		return c, nil, nil
	}
	tailoring, err := readBounded(s.cfg.Tailoring, maxTailoring)
	if err != nil {
		return nil, nil, fmt.Errorf("read the tailoring: %w", err)
	}
	sum := sha256.Sum256(tailoring)
	c.Tailoring = hex.EncodeToString(sum[:])
	return c, tailoring, nil
}

// found is an image whose layers are here.
type found struct {
	*image.Image
	name string
}

func (f *found) claimed() protocol.ClaimedImage {
	return protocol.ClaimedImage{Manifest: f.Manifest.String(), Config: f.Config.String()}
}

// scannable finds the images whose layers the content store has. An index stands for the image of this platform.
func (s *imageScanner) scannable(images []cri.Image) []found {
	dir, platform := filepath.Join(s.host, s.cfg.Contents), hostPlatform()
	var out []found
	seen := map[v1.Hash]bool{}
	for _, i := range images {
		for _, d := range i.Digests {
			h, err := v1.NewHash(d)
			var img *image.Image
			if err == nil {
				img, err = image.FromBlobs(dir, h, platform)
			}
			if err == nil && slices.ContainsFunc(img.Layers, func(l image.Layer) bool { return l.Encrypted }) {
				err = errors.New("its layers are encrypted: who has the key scans it (touchstone image scan)")
			}
			if err != nil {
				s.log.Debug("image cannot be scanned here", "image", i.Name, "digest", d, "error", err)
				continue
			}
			if !seen[img.Manifest] && len(out) < protocol.MaxClaimed {
				seen[img.Manifest] = true
				out = append(out, found{img, i.Name})
			}
		}
	}
	return out
}

// one scans one image.
func (s *imageScanner) one(ctx context.Context, i *found, profile string, tailoring []byte) *protocol.WorkerScan {
	scan := &protocol.WorkerScan{Image: i.claimed(), From: protocol.ScannedLayers}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.cfg.Timeout))
	defer cancel()
	q := &imagescan.Request{
		Content: s.cfg.Content, Profile: profile, Tailoring: tailoring, Feeds: s.cfg.Feeds, Now: s.now,
		Unpack: image.Options{Temp: s.temp, Limits: image.Limits{Bytes: s.cfg.MaxBytes, Files: scanFiles, Free: scanFree}},
		Runner: oscap.Runner{Time: time.Duration(s.cfg.Timeout), HostRoot: s.host},
	}
	var out *imagescan.Outcome
	err := oscap.AtLowest(func() (err error) {
		out, err = imagescan.Scan(ctx, i.Image, q)
		return err
	})
	if err != nil {
		s.log.Error("the scan of an image came to no result", "image", i.name, "digest", scan.Image.Manifest, "error", err)
		text := strings.ToValidUTF8(err.Error(), "?")
		scan.Error = text[:min(len(text), protocol.MaxScanError)]
		return scan
	}
	s.log.Info("scanned an image", "image", i.name, "digest", scan.Image.Manifest, "profile", profile, "took", out.Took.Round(time.Millisecond))
	scan.Report = &out.Report
	return scan
}

// send sends a scan until AIAS takes or refuses it, as long as the image is this worker's.
func (s *imageScanner) send(ctx context.Context, scan *protocol.WorkerScan, until time.Time) {
	for {
		taken, err := s.session().SendScan(ctx, scan)
		var r *Refusal
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			s.log.Info("AIAS has the scan of an image", "image", scan.Image.Manifest, "summary", taken.Summary)
			return
		case errors.As(err, &r) && r.Status/100 == 4 && !lostIdentity(err) && r.RetryAfter == 0 || !s.now().Before(until):
			s.log.Error("AIAS does not take the scan of an image", "image", scan.Image.Manifest, "error", err)
			return
		}
		s.log.Warn("the scan of an image could not be sent", "error", err, "trying again in", scanRetry)
		if !sleep(ctx, jitter(scanRetry, 0.1)) {
			return
		}
	}
}
