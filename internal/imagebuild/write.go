package imagebuild

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Reference names an image below a repository ("registry.example/touchstone").
func Reference(repository, image, version string) (name.Tag, error) {
	return name.NewTag(repository+"/"+image+":"+version, name.StrictValidation)
}

// WriteLayout writes the images as one OCI layout into dir, replacing what is there. Each index has its name in the annotations that
// image tools and containerd read.
func WriteLayout(dir, repository, version string, built []Built) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	to, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("write the layout: %w", err)
	}
	for _, b := range built {
		ref, err := Reference(repository, b.Spec.Name, version)
		if err != nil {
			return err
		}
		if err := to.AppendIndex(b.Index, layout.WithAnnotations(map[string]string{
			"org.opencontainers.image.ref.name": ref.TagStr(),
			"io.containerd.image.name":          ref.Name(),
		})); err != nil {
			return fmt.Errorf("write %s: %w", ref, err)
		}
	}
	return nil
}

// WriteArchives writes each image and architecture as a docker archive NAME-ARCH.tar into dir, for `ctr images import`, `docker load` and
// `kind load image-archive`.
func WriteArchives(dir, repository, version string, built []Built) error {
	for _, b := range built {
		ref, err := Reference(repository, b.Spec.Name, version)
		if err != nil {
			return err
		}
		for _, arch := range slices.Sorted(maps.Keys(b.Images)) {
			path := filepath.Join(dir, b.Spec.Name+"-"+arch+".tar")
			if err := tarball.WriteToFile(path, ref, b.Images[arch]); err != nil {
				return fmt.Errorf("write %s: %w", path, err)
			}
		}
	}
	return nil
}

// Push sends the images to the registry that the repository names, with the user's docker credentials.
func Push(ctx context.Context, repository, version string, built []Built) error {
	for _, b := range built {
		ref, err := Reference(repository, b.Spec.Name, version)
		if err != nil {
			return err
		}
		if err := remote.WriteIndex(ref, b.Index, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
			return fmt.Errorf("push %s: %w", ref, err)
		}
	}
	return nil
}
