package image

import (
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Bounds of an index.
const (
	maxDepth  = 3
	maxImages = 256
)

// Select finds the image for a platform in an index. Of several the first counts, as for container runtimes.
func Select(index v1.ImageIndex, platform v1.Platform) (v1.Image, error) {
	var have []string
	img, err := choose(index, platform, 0, &have)
	if err != nil || img != nil {
		return img, err
	}
	return nil, fmt.Errorf("it has no image for %s: choose one with --platform (%s)", platform.String(), clip(fmt.Sprint(have)))
}

func choose(index v1.ImageIndex, want v1.Platform, depth int, have *[]string) (v1.Image, error) {
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	if depth == maxDepth || len(m.Manifests) > maxImages {
		return nil, fmt.Errorf("the index holds more than %d images, or indexes in more than %d others", maxImages, maxDepth)
	}
	for _, d := range m.Manifests {
		if d.MediaType.IsIndex() {
			inner, err := index.ImageIndex(d.Digest)
			if err != nil {
				return nil, err
			}
			if img, err := choose(inner, want, depth+1, have); err != nil || img != nil {
				return img, err
			}
			continue
		}
		if !d.MediaType.IsImage() || d.Annotations["vnd.docker.reference.type"] == "attestation-manifest" {
			continue
		}
		if d.Platform == nil && len(m.Manifests) == 1 || d.Platform != nil && d.Platform.Satisfies(want) {
			return index.Image(d.Digest)
		}
		if d.Platform != nil {
			*have = append(*have, d.Platform.String())
		}
	}
	return nil, nil
}
