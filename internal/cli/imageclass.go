package cli

import (
	"errors"
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/imagescans"
	"touchstone.dev/touchstone/internal/compliance/content"
	"touchstone.dev/touchstone/internal/compliance/verdict"
)

// maxClass is how large the manifest of a class may be, in bytes: keys and waivers are in it.
const maxClass = 1 << 20

// classGate reads what the manifest of a TrustClass asks of scans of images.
func (a *App) classGate(file string) (*imagescans.Gate, error) {
	b, err := a.readFile(file, maxClass)
	if err != nil {
		return nil, err
	}
	class := &v1alpha1.TrustClass{}
	if err := yaml.UnmarshalStrict(b, class); err != nil {
		return nil, err
	}
	want := class.Spec.Images.Compliance
	if class.Kind != "TrustClass" || class.APIVersion != v1alpha1.GroupVersion.String() || want == nil {
		return nil, fmt.Errorf("%s is no TrustClass of %s with images.compliance", file, v1alpha1.GroupVersion)
	}
	return imagescans.NewGate(want)
}

// byClass takes from a class what is scanned for, where the flags do not say.
func (a *App) byClass(q *scanning) error {
	g, err := a.classGate(q.class)
	if err != nil {
		return err
	}
	r, profile := &q.request, g.Profile()
	if profile == content.Image && r.Content == "" {
		r.Content = content.Name
	}
	switch {
	case profile != "" && r.Content == "":
		return fmt.Errorf("the class asks for a scan by profile %s: give --content", profile)
	case g.Feed() && r.Feeds == "":
		return errors.New("the class asks for known vulnerabilities: give --feed")
	case r.Profile == "" && r.Content != "":
		r.Profile = profile
	}
	q.gate = g
	return nil
}

// rulesOf are the rules of a class for an image: its waivers may be for one repository, or one digest.
func rulesOf(g *imagescans.Gate, place, digest string) (*verdict.Rules, *verdict.FlawRules) {
	repository := ""
	if !strings.HasPrefix(place, "oci:") && !strings.HasPrefix(place, "docker-archive:") {
		repository = imagescans.Repository(place)
	}
	return g.Rules(repository, digest)
}
