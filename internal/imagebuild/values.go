package imagebuild

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"sigs.k8s.io/yaml"
)

// Values are the values of the Helm chart that name the images. Digests are for images that come from a registry: what is loaded into a
// node by hand has no digest there.
func Values(repository, version string, built []Built, digests bool) ([]byte, error) {
	image := map[string]any{"repository": repository, "tag": version}
	if digests {
		by := map[string]string{}
		for _, b := range built {
			d, err := b.Index.Digest()
			if err != nil {
				return nil, fmt.Errorf("digest of %s: %w", b.Spec.Name, err)
			}
			by[b.Spec.Name] = d.String()
		}
		image["digests"] = by
	}
	text, err := yaml.Marshal(map[string]any{"image": image})
	if err != nil {
		return nil, err
	}
	return append([]byte("# Written by `make images`: helm install -f this file.\n"), text...), nil
}

// References lists the programs in the images as sha256sum does, for `touchstone reference import`: the workers' IMA measures them like all others.
func References(built []Built) []byte {
	var b bytes.Buffer
	for _, i := range built {
		for _, arch := range slices.Sorted(maps.Keys(i.Digests)) {
			for _, path := range slices.Sorted(maps.Keys(i.Digests[arch])) {
				fmt.Fprintf(&b, "%s  %s\n", i.Digests[arch][path], path)
			}
		}
	}
	return b.Bytes()
}
