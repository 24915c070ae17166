package image

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Limits bound what unpacking an image takes.
type Limits struct {
	Bytes int64 // of all files that the layers have
	Files int   // entries of all layers
	// Free is how many bytes of the temporary folder's file system stay free.
	Free int64
}

// DefaultLimits are those of Options that name none.
var DefaultLimits = Limits{Bytes: 32 << 30, Files: 2_000_000, Free: 256 << 20}

// Options of Unpack.
type Options struct {
	// Temp is the folder to unpack in; "" is that of the system.
	Temp   string
	Limits Limits
	// Keys opens encrypted layers. Nil: they are refused.
	Keys Keys
	// Progress, when set, is told how many bytes of the stored layers were read, of how many.
	Progress func(done, total int64)
}

// Root is the root file system of an image in a folder. It must be closed.
type Root struct {
	// Dir is the root.
	Dir string
	// Image is what it was made of; every byte was checked against its digests.
	Image *Image
	Facts Facts

	home *home
}

// Close removes the files.
func (r *Root) Close() error { return r.home.remove() }

// Unpack makes the root file system of an image. An error leaves nothing behind.
func Unpack(ctx context.Context, img *Image, o Options) (*Root, error) {
	if o.Limits == (Limits{}) {
		o.Limits = DefaultLimits
	}
	h, err := newHome(o.Temp)
	if err != nil {
		return nil, err
	}
	r := &Root{Dir: h.root(), Image: img, Facts: Facts{Owned: os.Geteuid() == 0}, home: h}
	if err := r.unpack(ctx, o); err != nil {
		if rest := h.remove(); rest != nil {
			err = fmt.Errorf("%w (and %s is left: %w)", err, h.dir, rest)
		}
		return nil, err
	}
	return r, nil
}

func (r *Root) unpack(ctx context.Context, o Options) error {
	t, err := openTree(r.Dir)
	if err != nil {
		return err
	}
	defer t.close()
	l := newLayers(t, o.Limits, &r.Facts)
	var done int64
	total := r.Image.Bytes()
	progress := func(n int) {
		if done += int64(n); o.Progress != nil {
			o.Progress(done, total)
		}
	}
	for i := range r.Image.Layers {
		layer := &r.Image.Layers[i]
		if err := room(t.fd, o.Limits.Free); err != nil {
			return err
		}
		// What the entries themselves take is bounded by their number.
		most := o.Limits.Bytes + int64(o.Limits.Files)<<12
		err := layer.read(ctx, most, o.Keys, progress, func(in io.Reader) error {
			return l.apply(ctx, &watched{Reader: in, fd: t.fd, free: o.Limits.Free})
		})
		if err != nil {
			return fmt.Errorf("layer %d of %d: %w", i+1, len(r.Image.Layers), err)
		}
	}
	return t.settle(l.links)
}

// room says when a file system is too full.
func room(fd int, free int64) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return err
	}
	if have := int64(st.Bavail) * st.Bsize; have < free { //nolint:gosec // no file system has 2^63 bytes
		return fmt.Errorf("the temporary folder has only %d MiB left: make room, or name another one (--temp)", have>>20)
	}
	return nil
}

// watched looks at the room that is left, now and then.
type watched struct {
	io.Reader
	fd         int
	free, next int64
}

const lookEvery = 64 << 20 // bytes

func (w *watched) Read(p []byte) (int, error) {
	if w.next -= int64(len(p)); w.next < 0 {
		w.next = lookEvery
		if err := room(w.fd, w.free); err != nil {
			return 0, err
		}
	}
	return w.Reader.Read(p)
}
