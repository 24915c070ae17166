package images

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Limits of an image: an index has a manifest for each platform.
const (
	maxManifests = 64
	maxLayers    = 1024 // of all manifests
)

// Marks of an encrypted layer, as ocicrypt makes them.
const (
	encryptedSuffix = "+encrypted"
	wrappedKey      = "org.opencontainers.image.enc.keys."
)

// encrypted returns the number of layers of an image when all of them are encrypted. Of an index that means those of all manifests, whatever they
// say they are for: which one a node takes, the node's runtime decides.
func (s *source) encrypted(ctx context.Context, digest string) (int, error) {
	open, seen, layers := []string{digest}, map[string]bool{digest: true}, 0
	for ; len(open) > 0; open = open[1:] {
		m, err := s.manifest(ctx, open[0])
		if errors.Is(err, errAbsent) {
			return 0, fmt.Errorf("the registry does not have %s", open[0])
		} else if err != nil {
			return 0, err
		}
		if len(m.Layers) == 0 && len(m.Manifests) == 0 {
			return 0, fmt.Errorf("manifest %s has no layers: nothing of it is encrypted", open[0])
		}
		if layers += len(m.Layers); layers > maxLayers {
			return 0, fmt.Errorf("it has more than %d layers", maxLayers)
		}
		for i, l := range m.Layers {
			if err := isEncrypted(l); err != nil {
				return 0, fmt.Errorf("layer %d of manifest %s %w", i+1, open[0], err)
			}
		}
		for _, d := range m.Manifests {
			if !isDigest(d.Digest) {
				return 0, errors.New("a manifest in its index is not named by a SHA-256 digest")
			}
			if !seen[d.Digest] {
				seen[d.Digest] = true
				open = append(open, d.Digest)
			}
		}
		if len(seen) > maxManifests {
			return 0, fmt.Errorf("it has more than %d manifests", maxManifests)
		}
	}
	return layers, nil
}

func isEncrypted(l descriptor) error {
	if !strings.HasSuffix(l.MediaType, encryptedSuffix) {
		return errors.New("is not encrypted (`touchstone image encrypt` encrypts all)")
	}
	for name := range l.Annotations {
		if strings.HasPrefix(name, wrappedKey) {
			return nil
		}
	}
	return errors.New("is said to be encrypted, but has no wrapped key")
}
