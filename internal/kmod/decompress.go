package kmod

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

const (
	maxXZDict     = 256 << 20 // bytes of window that an xz stream may ask for
	maxZstdWindow = 256 << 20
)

// decompress unpacks a kernel's payload by its magic number. The build appends the unpacked size (4 bytes) to most formats, so bytes
// after the compressed stream are left alone.
func decompress(b []byte, limit int64) ([]byte, error) {
	var r io.Reader
	switch {
	case bytes.HasPrefix(b, []byte("\xfd7zXZ\x00")):
		// Kernels use the x86 branch filter, which this reader knows.
		x, err := xz.NewReader(bytes.NewReader(b), maxXZDict)
		if err != nil {
			return nil, fmt.Errorf("xz: %w", err)
		}
		x.Multistream(false)
		r = x
	case bytes.HasPrefix(b, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		d, err := zstd.NewReader(oneFrame(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		defer d.Close()
		r = d
	case bytes.HasPrefix(b, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		z.Multistream(false)
		r = z
	case bytes.HasPrefix(b, []byte("BZh")):
		r = bzip2.NewReader(bytes.NewReader(b[:max(0, len(b)-4)]))
	case bytes.HasPrefix(b, []byte{0x02, 0x21, 0x4c, 0x18}):
		return unpackLZ4(b, limit)
	default:
		return nil, fmt.Errorf("compression that begins with % x is not known", b[:min(6, len(b))])
	}
	return readAll(r, limit)
}

// oneFrame gives the decoder b without the four bytes of size at its end, which it would take for another frame.
func oneFrame(b []byte) io.Reader { return bytes.NewReader(b[:len(b)-4]) }

func readAll(r io.Reader, limit int64) ([]byte, error) {
	var out bytes.Buffer
	n, err := io.Copy(&out, io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("more than %d bytes unpacked", limit)
	}
	if n == 0 {
		return nil, errors.New("nothing in it")
	}
	return out.Bytes(), nil
}
