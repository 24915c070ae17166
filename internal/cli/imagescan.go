package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/cluster/imagescans"
	"touchstone.dev/touchstone/internal/compliance/content"
	"touchstone.dev/touchstone/internal/compliance/image"
	"touchstone.dev/touchstone/internal/compliance/imagescan"
	"touchstone.dev/touchstone/internal/compliance/verdict"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/policy"
	"touchstone.dev/touchstone/internal/protocol"
)

// scanning is what `image scan` is asked.
type scanning struct {
	encryption        // how registries are spoken to
	platform, policy  string
	tailoring, budget string
	request           imagescan.Request
	submit            bool
	ignoreUnfixed     bool
	class             string
	gate              *imagescans.Gate // of the class
}

// scanned is what it says.
type scanned struct {
	Image     string   `json:"image"`
	Digest    string   `json:"digest"`
	Passed    bool     `json:"passed"`
	Problems  []string `json:"problems,omitempty"`
	Submitted bool     `json:"submitted,omitempty"`
	*imagescan.Outcome
}

func (a *App) imageScanCmd() *cobra.Command {
	q := scanning{request: imagescan.Request{Now: a.Now}}
	cmd := &cobra.Command{
		Use:   "scan IMAGE",
		Short: "Scan an image against a security baseline and for known vulnerabilities, without a container engine",
		Long: `Scan an image: its layers are unpacked into a private folder and checked against their digests, oscap evaluates a profile over them, and a feed of
vulnerabilities in Debian's form (oval-definitions-bookworm.xml) is held against its packages. Nothing of the image is run. oscap needs root.

Without --content and --feed it is held against the baseline of the product (docs/reference/baseline.md), which is for images that keep their packages
with dpkg; of others that cannot be judged, exit code 2.

IMAGE is an image in a registry, oci:FOLDER[:TAG] or docker-archive:FILE[:NAME:TAG]. Exit code 0: it passes; 1: it does not; 2: it could not be scanned,
which is no pass. What passes: no rule may fail and no vulnerability be there, unless --class (what the admission of pods of a trust class asks), --policy (its
runtime.compliance), --max-flaws or --ignore-unfixed says otherwise.
With --submit the result goes to AIAS, passed or not; trust classes that ask for a scan of images are held against it.

Logins for registries come from the file of a container client ($DOCKER_CONFIG/config.json or ~/.docker/config.json); credential helpers are not run.`,
		Example: `  touchstone image scan oci:app
  touchstone image scan registry.example/team/app:1.4 --content ssg-debian12-ds.xml --profile xccdf_org.ssgproject.content_profile_standard
  touchstone image scan oci:app --feed /srv/oval --max-flaws low=-1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &q.request
			if q.class != "" {
				if err := a.byClass(&q); err != nil {
					return unreadable(fmt.Errorf("--class: %w", err))
				}
			}
			if r.Content == "" && (r.Profile != "" || r.Feeds == "") {
				r.Content = content.Name
			}
			r.Profile = content.ProfileOr(r.Profile, r.Content, content.Image)
			if (r.Profile == "") != (r.Content == "") {
				return usage(cmd, errors.New("by which profile of the content? Give --profile ID"))
			}
			done, err := a.scanImage(cmd, &q, args[0])
			if err != nil {
				return unreadable(fmt.Errorf("image %s could not be scanned: %w", args[0], err))
			}
			if err := a.show(done, func(w io.Writer) { a.drawScanned(w, done) }); err != nil {
				return err
			}
			if !done.Passed {
				return &exitError{code: ExitNotTrusted}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.request.Content, "content", "", "SCAP data stream `FILE`, or baseline: that of the product")
	f.StringVar(&q.request.Profile, "profile", "", "`ID` of a profile of the content, or of the tailoring (default, of the baseline: that for images)")
	f.StringVar(&q.tailoring, "tailoring", "", "XCCDF tailoring `FILE`")
	f.StringVar(&q.request.Feeds, "feed", "", "`FOLDER` with feeds of vulnerabilities, oval-definitions-RELEASE.xml (or .gz, .bz2)")
	f.DurationVar(&q.request.FeedAge, "feed-max-age", 7*24*time.Hour, "how old a feed may be; 0 for any age")
	f.StringVar(&q.policy, "policy", "", "policy `FILE` whose runtime.compliance says which rules may fail")
	f.StringVar(&q.class, "class", "", "TrustClass `FILE` whose images.compliance says what passes, as the admission of pods does")
	f.StringVar(&q.budget, "max-flaws", "", "how many vulnerabilities there may be, as `SEVERITY=NUMBER,...`; -1 is any number")
	f.BoolVar(&q.ignoreUnfixed, "ignore-unfixed", false, "vulnerabilities that no newer version mends do not count")
	f.StringVar(&q.request.ARF, "arf", "", "write oscap's ARF to `FILE`")
	f.StringVar(&q.request.HTML, "html", "", "write oscap's report to `FILE`")
	f.StringVar(&q.platform, "platform", "linux/"+runtime.GOARCH, "`PLATFORM` of an image for several")
	f.BoolVar(&q.submit, "submit", false, "send the result to AIAS (needs an operator bundle)")
	f.BoolVar(&q.plainHTTP, "plain-http", false, "ask the registry without TLS")
	f.StringVar(&q.ca, "ca", "", "`FILE` with root certificates of the registry, beside those of the system")
	f.StringVar(&q.auth, "auth", "", "`FILE` with logins for the registry (default: that of the container client)")
	f.StringVar(&q.temp, "temp", "", "`FOLDER` to unpack the image in (default: that of the system)")
	cmd.MarkFlagsMutuallyExclusive("class", "policy")
	cmd.MarkFlagsMutuallyExclusive("class", "max-flaws")
	cmd.MarkFlagsMutuallyExclusive("class", "ignore-unfixed")
	return cmd
}

// maxTailoring is how large a tailoring may be, in bytes.
const maxTailoring = 4 << 20

func (a *App) scanImage(cmd *cobra.Command, q *scanning, place string) (*scanned, error) {
	rules, flaws, err := a.scanRules(q)
	if err != nil {
		return nil, err
	}
	if q.tailoring != "" {
		if q.request.Tailoring, err = a.readFile(q.tailoring, maxTailoring); err != nil {
			return nil, fmt.Errorf("--tailoring: %w", err)
		}
	}
	img, err := a.openImage(cmd.Context(), q, place)
	if err != nil {
		return nil, err
	}
	if _, err := image.Sweep(q.temp); err != nil {
		fmt.Fprintf(a.Err, "what earlier scans left cannot be removed: %s\n", render.Clean(oneLine(err.Error())))
	}
	p := a.newProgress("reading " + place)
	q.request.Unpack = image.Options{Temp: q.temp, Progress: p.update}
	out, err := imagescan.Scan(cmd.Context(), img, &q.request)
	p.end()
	if err != nil {
		return nil, err
	}
	if q.gate != nil {
		rules, flaws = rulesOf(q.gate, place, img.ID())
	}
	done := &scanned{Image: place, Digest: img.ID(), Outcome: out, Problems: imagescan.Judge(out.Scan, rules, out.Report.Feed, flaws, a.Now())}
	done.Passed = len(done.Problems) == 0
	if q.submit {
		err := a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
			_, err := c.SubmitImage(ctx, done.Digest, &out.Report)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("the result did not reach AIAS: %w", err)
		}
		done.Submitted = true
	}
	return done, nil
}

// scanRules reads what passes.
func (a *App) scanRules(q *scanning) (*verdict.Rules, *verdict.FlawRules, error) {
	rules := &verdict.Rules{}
	if q.policy != "" {
		b, err := a.readFile(q.policy, maxConditions)
		if err != nil {
			return nil, nil, fmt.Errorf("--policy: %w", err)
		}
		p, err := policy.Parse(b)
		if err != nil {
			return nil, nil, fmt.Errorf("--policy: %w", err)
		}
		rules = p.Spec.Runtime.Compliance.Rules()
		if t := p.Spec.Runtime.Compliance.Tailored(); t != nil && q.tailoring == "" && q.request.Content != "" && (q.request.Profile == t.Profile || q.request.Profile == t.ID()) {
			q.request.Profile, q.request.Tailoring = t.ID(), t.Document()
		}
	}
	budget, err := imagescan.ParseBudget(q.budget)
	if err != nil {
		return nil, nil, fmt.Errorf("--max-flaws: %w", err)
	}
	return rules, &verdict.FlawRules{Max: budget, IgnoreUnfixed: q.ignoreUnfixed}, nil
}

func (a *App) openImage(ctx context.Context, q *scanning, place string) (*image.Image, error) {
	r, err := a.registry(&q.encryption)
	if err != nil {
		return nil, err
	}
	platform, err := v1.ParsePlatform(q.platform)
	if err != nil {
		return nil, fmt.Errorf("--platform: %w", err)
	}
	src, err := r.Open(ctx, place)
	if err != nil {
		return nil, err
	}
	found := src.Image
	if src.Index != nil {
		if found, err = image.Select(src.Index, *platform); err != nil {
			return nil, err
		}
	}
	if strings.HasPrefix(place, "docker-archive:") {
		return image.FromArchive(found)
	}
	return image.FromManifest(found)
}

// maxShown is how many problems and flaws are drawn.
const maxShown = 40

func (a *App) drawScanned(w io.Writer, s *scanned) {
	status, word := appraisal.Pass, "passes"
	if !s.Passed {
		status, word = appraisal.Fail, "does not pass"
	}
	fmt.Fprintf(w, "%s  %s\n", a.Style.Status(status, word), render.Clean(s.Image))
	field := func(label, text string) { a.Style.Field(w, 2, label, render.Clean(text)) }
	field("digest", s.Digest)
	if s.Scan != nil {
		field("profile", fmt.Sprintf("%s: %s, score %.1f", s.Scan.Profile, s.Scan.Summary(), s.Scan.Score))
	}
	if f := s.Report.Feed; f != nil {
		field("feed", fmt.Sprintf("of %s, %s judged over %s: %s", f.Made.Format(time.DateOnly), render.Count(f.Judged, "definition"), render.Count(f.Packages, "package"), flawCounts(f)))
	}
	field("looked at", fmt.Sprintf("%s, %.1f MiB, in %.1f s", render.Count(s.Facts.Files, "file"), float64(s.Facts.Bytes)/(1<<20), s.Took.Seconds()))
	for i, p := range s.Problems {
		if i == maxShown {
			field("", fmt.Sprintf("and %d more: -o json has all", len(s.Problems)-maxShown))
			break
		}
		field("problem", p)
	}
	if f := s.Report.Feed; f != nil {
		for _, x := range f.Flaws[:min(len(f.Flaws), maxShown)] {
			mended := "no version has it mended"
			if x.Fixed != "" {
				mended = x.Fixed + " has it mended"
			}
			field(x.ID, fmt.Sprintf("%s: %s %s is installed, %s", x.Severity, x.Package, x.Installed, mended))
		}
	}
	if s.Submitted {
		field("submitted", "AIAS has the result")
	}
	for _, n := range s.Notes {
		field("note", n)
	}
}

func flawCounts(f *protocol.ImageFeed) string {
	if len(f.Flaws) == 0 {
		return "no known vulnerability"
	}
	counts, parts := f.Counts(), []string(nil)
	for _, s := range verdict.FlawSeverities {
		if counts[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[s], s))
		}
	}
	return strings.Join(parts, ", ")
}
