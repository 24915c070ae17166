package image

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"touchstone.dev/touchstone/internal/layercrypt"
)

// Memory of a zstd window: that of the strongest usual setting.
const maxWindow = 128 << 20

// Keys opens what the annotations of an encrypted layer carry for somebody who holds the key: the private options of its cipher.
type Keys func(ctx context.Context, packet []byte) ([]byte, error)

// ErrEncrypted says that a layer is encrypted and the key is not here.
var ErrEncrypted = errors.New("the image is encrypted: scan it before it is encrypted, or on a worker that AIAS gives its key")

// read reads a layer and hands it on, unpacked, to use. It is an error when the layer, stored or unpacked, is not what its digests say: what use did with it
// must be thrown away then.
func (l *Layer) read(ctx context.Context, limit int64, keys Keys, progress func(n int), use func(io.Reader) error) error {
	from, err := l.Open(ctx)
	if err != nil {
		return err
	}
	end, stop := func() {}, func() {}
	defer func() {
		from.Close() //nolint:errcheck // it was read; who still reads sees the end
		stop()
		end()
	}()
	stored := &counted{ctx: ctx, r: from, sum: sha256.New(), told: progress, left: 1 << 62}
	if l.Size > 0 {
		stored.left = l.Size + 1
	}
	var in io.Reader = stored
	if l.Encrypted {
		if in, err = l.decrypt(ctx, stored, keys); err != nil {
			return err
		}
	}
	unpacked, closed, err := decompress(in)
	if err != nil {
		return err
	}
	end = closed
	var piped io.Reader
	piped, stop = ahead(unpacked)
	plain := &counted{ctx: ctx, r: piped, sum: sha256.New(), left: limit + 1}
	if err := use(plain); err != nil {
		if plain.left <= 0 {
			err = fmt.Errorf("unpacked it has more than %d bytes", limit)
		}
		return err
	}
	if _, err := io.Copy(io.Discard, plain); err != nil { // what follows the last entry belongs to the digest
		return err
	}
	if plain.left <= 0 {
		return fmt.Errorf("unpacked it has more than %d bytes", limit)
	}
	if plain.digest() != l.Plain {
		return fmt.Errorf("%w: unpacked it is %s, not %s", ErrDigest, plain.digest(), l.Plain)
	}
	return l.checkStored(stored, in)
}

// checkStored reads what is left of the stored layer and compares its digest.
func (l *Layer) checkStored(stored *counted, in io.Reader) error {
	for _, r := range []io.Reader{in, stored} { // a cipher checks its MAC at its end
		if _, err := io.Copy(io.Discard, r); err != nil {
			return err
		}
	}
	if l.Stored.Hex != "" && stored.digest() != l.Stored {
		return fmt.Errorf("%w: it is %s", ErrDigest, stored.digest())
	}
	return nil
}

func (l *Layer) decrypt(ctx context.Context, in io.Reader, keys Keys) (io.Reader, error) {
	if keys == nil {
		return nil, ErrEncrypted
	}
	packets, err := layercrypt.Packets(l.Annotations)
	if err != nil {
		return nil, err
	}
	var failed error
	for _, p := range packets {
		private, err := keys(ctx, p)
		if err == nil {
			return layercrypt.Decrypt(in, l.Annotations, private)
		}
		failed = err
	}
	return nil, fmt.Errorf("%w (%w)", ErrEncrypted, failed)
}

// decompress looks at the first bytes, not at the media type: so do container runtimes.
func decompress(r io.Reader) (io.Reader, func(), error) {
	in := bufio.NewReaderSize(r, 1<<17)
	magic, err := in.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(in)
		return z, func() {}, err
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return in, func() {}, nil
}

// ahead reads in a goroutine of its own, so that unpacking and writing share two processors. stop ends it and waits for it.
func ahead(r io.Reader) (io.Reader, func()) {
	const pieces, piece = 4, 1 << 17
	free, full, quit, done := make(chan []byte, pieces), make(chan []byte, pieces), make(chan struct{}), make(chan struct{})
	for range pieces {
		free <- make([]byte, piece)
	}
	a := &readAhead{free: free, full: full}
	go func() {
		defer close(done)
		defer close(full)
		for {
			var b []byte
			select {
			case b = <-free:
			case <-quit:
				return
			}
			n, err := 0, error(nil)
			for b = b[:piece]; n < piece && err == nil; {
				var m int
				m, err = r.Read(b[n:])
				n += m
			}
			if n > 0 {
				full <- b[:n] // there is room: no more pieces than places
			}
			if err != nil {
				a.err = err
				return
			}
		}
	}()
	return a, func() { close(quit); <-done }
}

type readAhead struct {
	free, full chan []byte
	now, all   []byte
	err        error // read after full was closed
}

func (a *readAhead) Read(p []byte) (int, error) {
	for len(a.now) == 0 {
		if a.all != nil {
			a.free <- a.all
			a.all = nil
		}
		b, ok := <-a.full
		if !ok {
			return 0, a.err
		}
		a.now, a.all = b, b
	}
	n := copy(p, a.now)
	a.now = a.now[n:]
	return n, nil
}

// counted hashes what is read and ends when its limit or the context does.
type counted struct {
	ctx  context.Context
	r    io.Reader
	sum  hash.Hash
	told func(n int)
	left int64
}

func (c *counted) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	if c.left <= 0 {
		return 0, errors.New("it is longer than it may be")
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.r.Read(p)
	c.left -= int64(n)
	c.sum.Write(p[:n])
	if c.told != nil && n > 0 {
		c.told(n)
	}
	return n, err
}

func (c *counted) digest() v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(c.sum.Sum(nil))}
}
