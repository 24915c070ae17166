package layercrypt

import (
	"io"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/imagekey"
)

// FuzzPackets: what a registry says of a layer ends in an error or in bytes, never in a panic. Package imagecrypt tests what is right.
func FuzzPackets(f *testing.F) {
	f.Add("QUJD", "e30=")
	f.Add("eyJzeW1rZXkiOiJBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE9In0=", "eyJjaXBoZXIiOiJBRVNfMjU2X0NUUl9ITUFDX1NIQTI1NiIsImhtYWMiOiJBQUFBIn0=")
	f.Fuzz(func(_ *testing.T, keys, options string) {
		a := map[string]string{imagekey.KeysAnnotation: keys, imagekey.OptionsName: options}
		packets, err := Packets(a)
		if err != nil {
			return
		}
		for _, p := range packets {
			if r, err := Decrypt(strings.NewReader("x"), a, p); err == nil {
				_, _ = io.ReadAll(r)
			}
		}
	})
}
