package imagescans

import (
	"fmt"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/compliance/content"
	"touchstone.dev/touchstone/internal/compliance/verdict"
)

// maxSaid is how many problems a refusal names.
const maxSaid = 5

// Refusal says why an image, named by its digest, does not pass, and what to do; nil when it passes.
func (g *Gate) Refusal(v *Verdict, image string) error {
	if v.Good() {
		return nil
	}
	if v.Missing != "" {
		return fmt.Errorf("%s (of an image for several platforms, name the digest of one); scan it: %s", v.Missing, g.command(image))
	}
	var said, todo []string
	for _, p := range v.Problems[:min(len(v.Problems), maxSaid)] {
		said = append(said, inWords(&p))
	}
	if more := len(v.Problems) - maxSaid; more > 0 {
		said = append(said, fmt.Sprintf("and %d more", more))
	}
	for _, w := range v.Unused[:min(len(v.Unused), maxSaid)] {
		said = append(said, fmt.Sprintf("the waiver of %s for %s%s ended %s", w.Owner, w.Rule, w.Flaw, w.Until.UTC().Format(time.RFC3339)))
	}
	mend, again := false, false
	for i := range v.Problems {
		ofImage := v.Problems[i].Rule != "" || v.Problems[i].Flaws
		mend, again = mend || ofImage, again || !ofImage
	}
	if mend {
		todo = append(todo, "mend the image, or let who answers for the class waive it (images.compliance.waivers)")
	}
	if again {
		todo = append(todo, "scan it again: "+g.command(image))
	}
	return fmt.Errorf("%s does not pass: %s; %s", v.about(), strings.Join(said, "; "), strings.Join(todo, "; "))
}

// about names what was judged.
func (v *Verdict) about() string {
	if v.Scan != nil {
		return fmt.Sprintf("its scan by profile %s of %s", v.Scan.Profile, v.Scan.Scanned.UTC().Format(time.RFC3339))
	}
	return "its look for vulnerabilities of " + v.Feed.Scanned.UTC().Format(time.RFC3339)
}

func inWords(p *verdict.Problem) string {
	switch {
	case p.Flaws:
		return fmt.Sprintf("%s, %s: %s", p.Message, p.Expected, p.Observed)
	case p.Rule != "" && p.Expected == "pass":
		return p.Message
	}
	return fmt.Sprintf("%s (expected %s, observed %s)", p.Message, p.Expected, p.Observed)
}

// command scans an image for what the gate asks.
func (g *Gate) command(image string) string {
	c := "touchstone image scan " + image
	switch g.profile {
	case "":
	case content.Image:
		c += " --content " + content.Name
	default:
		c += " --profile " + g.profile + " --content FILE"
	}
	if g.feed {
		c += " --feed FOLDER"
	}
	return c + " --submit"
}
