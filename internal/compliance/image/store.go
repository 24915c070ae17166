package image

import (
	"encoding/json"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// anyManifest is what counts of a manifest and of an index.
type anyManifest struct {
	Config    v1.Descriptor   `json:"config"`
	Layers    []v1.Descriptor `json:"layers"`
	Manifests []v1.Descriptor `json:"manifests"`
}

func parseAny(raw []byte) (*anyManifest, error) {
	m := &anyManifest{}
	if err := json.Unmarshal(raw, m); err != nil {
		return nil, errors.New("it cannot be read")
	}
	if len(m.Manifests) > maxImages || len(m.Layers) > maxLayers {
		return nil, fmt.Errorf("it has more than %d images or %d layers", maxImages, maxLayers)
	}
	return m, nil
}

// member chooses the image for a platform in an index.
func member(raw []byte, want v1.Platform) (v1.Hash, error) {
	m, err := parseAny(raw)
	if err != nil {
		return v1.Hash{}, err
	}
	for _, d := range m.Manifests {
		if d.Annotations["vnd.docker.reference.type"] != "attestation-manifest" &&
			(d.Platform == nil && len(m.Manifests) == 1 || d.Platform != nil && d.Platform.Satisfies(want)) {
			return d.Digest, nil
		}
	}
	return v1.Hash{}, fmt.Errorf("the index has no image for %s", want.String())
}

func configOf(raw []byte) (v1.Hash, error) {
	m, err := parseAny(raw)
	if err != nil {
		return v1.Hash{}, err
	}
	return m.Config.Digest, nil
}
