package images

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"touchstone.dev/touchstone/internal/admission/signature"
)

// Limits of what is tried for one image.
const (
	maxSignatures = 32  // signatures
	maxReferrers  = 256 // artifacts that refer to the image
	maxArtifacts  = 64  // of them that are read
	maxReasons    = 3   // that a message repeats
)

// artifactType is that of simple signatures that refer to the image, in place of a tag.
const artifactType = "application/vnd.dev.cosign.artifact.sig.v1+json"

// search looks for a signature by one of the keys.
type search struct {
	*source
	keys    *signature.Keys
	digest  string
	tried   int
	reasons []string
}

// found is a signature that holds.
type found struct{ signer, form string }

// errEnough ends a search.
var errEnough = errors.New("enough")

// run returns the first signature that holds. It looks where cosign puts them: at the tag sha256-HEX.sig, and at artifacts that refer to the image, which
// registries without the referrers API keep in an index at the tag sha256-HEX.
func (s *search) run(ctx context.Context) (*found, error) {
	tag := strings.Replace(s.digest, ":", "-", 1)
	m, err := s.manifest(ctx, tag+".sig")
	if err == nil {
		if f, err := s.layers(ctx, m, false); f != nil {
			return f, nil
		} else if err != nil {
			return nil, s.ended(err)
		}
	} else if !errors.Is(err, errAbsent) {
		return nil, err
	}
	list, err := s.referrers(ctx, tag)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(d descriptor) bool { return !mayBeSignature(d) })
	for i, d := range list {
		if i == maxArtifacts {
			return nil, s.ended(errEnough)
		}
		m, err := s.manifest(ctx, d.Digest)
		if errors.Is(err, errAbsent) {
			continue
		} else if err != nil {
			return nil, err
		}
		if f, err := s.layers(ctx, m, true); f != nil {
			return f, nil
		} else if err != nil {
			return nil, s.ended(err)
		}
	}
	return nil, s.ended(nil)
}

// What a registry says of an artifact that refers to an image: of what type it is, and of a bundle, what it states. Some registries do not know the type
// of an artifact that is younger than they are, and call it by that of its empty configuration.
const (
	emptyType           = "application/vnd.oci.empty.v1+json"
	predicateAnnotation = "dev.sigstore.bundle.predicateType"
)

// mayBeSignature tells whether an artifact is worth reading. The registry's word decides nothing else.
func mayBeSignature(d descriptor) bool {
	switch d.ArtifactType {
	case "", emptyType, artifactType:
	default:
		if !signature.IsBundle(d.ArtifactType) {
			return false
		}
	}
	predicate, ok := d.Annotations[predicateAnnotation]
	return isDigest(d.Digest) && (!ok || predicate == signature.Predicate)
}

// ended is why no signature was found.
func (s *search) ended(err error) error {
	switch {
	case err != nil && !errors.Is(err, errEnough):
		return err
	case s.tried == 0:
		return errors.New("it is not signed: the registry has no signature for this digest (`cosign sign --key` makes one)")
	}
	reasons := strings.Join(slices.Compact(s.reasons[:min(len(s.reasons), maxReasons)]), "; ")
	if err != nil {
		reasons += "; there are more, which are not looked at"
	}
	return fmt.Errorf("no signature of %d by %d keys holds: %s", s.tried, s.keys.Len(), reasons)
}

// referrers lists the artifacts that refer to the image.
func (s *search) referrers(ctx context.Context, tag string) ([]descriptor, error) {
	const index = "application/vnd.oci.image.index.v1+json"
	b, contentType, err := s.get(ctx, "referrers", s.digest, index, maxManifest)
	var status statusError
	switch {
	case err == nil && strings.HasPrefix(contentType, index):
	case err == nil, errors.Is(err, errAbsent), errors.As(err, &status) && (status == 400 || status == 405 || status == 406): // it does not know the question
		if b, _, err = s.get(ctx, "manifests", tag, index, maxManifest); errors.Is(err, errAbsent) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
	default:
		return nil, err
	}
	m, err := parseManifest(b)
	if err != nil {
		return nil, fmt.Errorf("the list of what refers to the image: %w", err)
	}
	if len(m.Manifests) > maxReferrers {
		return nil, fmt.Errorf("more than %d artifacts refer to the image", maxReferrers)
	}
	return m.Manifests, nil
}

// layers tries the signatures in the layers of one artifact.
func (s *search) layers(ctx context.Context, m *manifest, bundles bool) (*found, error) {
	for _, l := range m.Layers {
		simple := l.MediaType == signature.SimpleType
		if !simple && (!bundles || !signature.IsBundle(l.MediaType)) || !isDigest(l.Digest) {
			continue
		}
		if s.tried == maxSignatures {
			return nil, errEnough
		}
		s.tried++
		limit, form := signature.MaxBundle, "bundle"
		if simple {
			limit, form = signature.MaxPayload, "simple signing"
		}
		b, err := s.blob(ctx, l.Digest, limit)
		if err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			s.reasons = append(s.reasons, err.Error())
			continue
		}
		var signer string
		if simple {
			signer, err = s.keys.Simple(b, l.Annotations[signature.SimpleAnnotation], s.digest)
		} else {
			signer, err = s.keys.Bundle(b, s.digest)
		}
		if err == nil {
			return &found{signer: signer, form: form}, nil
		}
		s.reasons = append(s.reasons, err.Error())
	}
	return nil, nil
}

// isDigest tells whether s is a digest as we ask for.
func isDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}
