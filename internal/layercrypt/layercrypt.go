// Package layercrypt decrypts one layer of an encrypted image, as package imagecrypt or any other client of ocicrypt encrypted it. It is apart from
// imagecrypt so that the program that runtimes start for each layer stays small.
package layercrypt

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/containers/ocicrypt/blockcipher"

	"touchstone.dev/touchstone/internal/imagekey"
)

const (
	maxPublic   = 4 << 10 // bytes of the public options of a layer
	maxPackets  = 8       // annotations of a layer, one for each key that opens it
	maxProvider = 64      // bytes of a provider's name
)

// Packets returns the annotations of a layer that a key provider may open, by the name of the provider: those of Touchstone first.
func Packets(annotations map[string]string) ([][]byte, error) {
	var out [][]byte
	names := slices.Sorted(maps.Keys(annotations))
	slices.SortStableFunc(names, func(a, b string) int {
		if a == imagekey.KeysAnnotation {
			return -1
		}
		if b == imagekey.KeysAnnotation {
			return 1
		}
		return 0
	})
	for _, name := range names {
		provider, ok := strings.CutPrefix(name, imagekey.KeysPrefix)
		if !ok || len(provider) > maxProvider {
			continue
		}
		for _, text := range strings.Split(annotations[name], ",") {
			b, err := base64.StdEncoding.DecodeString(text)
			if err != nil || len(b) == 0 || len(b) > imagekey.MaxAnnotation {
				return nil, fmt.Errorf("annotation %s of the layer is not base64 of 1 to %d bytes", name, imagekey.MaxAnnotation)
			}
			if len(out) == maxPackets {
				return nil, fmt.Errorf("the layer has more than %d annotations with keys", maxPackets)
			}
			out = append(out, b)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("the layer has no annotation with a key of a key provider: it was encrypted for something else")
	}
	return out, nil
}

// Decrypt decrypts a layer while it is read: annotations are the layer's, private are the options that a key provider opened. The stream ends with an
// error when the layer was changed; who reads it must throw away what came before.
func Decrypt(in io.Reader, annotations map[string]string, private []byte) (io.Reader, error) {
	text := annotations[imagekey.OptionsName]
	public, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(public) > maxPublic {
		return nil, fmt.Errorf("annotation %s of the layer is not base64 of at most %d bytes", imagekey.OptionsName, maxPublic)
	}
	var o blockcipher.LayerBlockCipherOptions
	if err := json.Unmarshal(public, &o.Public); err != nil {
		return nil, errors.New("the public options of the layer cannot be read")
	}
	if err := json.Unmarshal(private, &o.Private); err != nil {
		return nil, errors.New("the private options of the layer cannot be read") // with no part of them: they are secret
	}
	// The nonce is not under the layer's MAC. That of the private options is under their seal; one beside it would take its place.
	o.Public.CipherOptions = nil
	cipher, err := blockcipher.NewLayerBlockCipherHandler()
	if err != nil {
		return nil, err
	}
	out, _, err := cipher.Decrypt(in, o)
	return out, err
}
