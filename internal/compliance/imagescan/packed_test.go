package imagescan

import (
	"bytes"
	"compress/gzip"
	"io"
	"testing"
)

// TestPacked: what is sent to AIAS is whole, however short it is.
func TestPacked(t *testing.T) {
	for _, want := range []string{"", "<TestResult/>", string(bytes.Repeat([]byte("<rule-result/>"), 50_000))} {
		b, err := packed([]byte(want))
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(z); err != nil || string(got) != want {
			t.Errorf("%d bytes: got %d back, %v", len(want), len(got), err)
		}
	}
}
