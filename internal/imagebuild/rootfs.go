package imagebuild

import (
	"archive/tar"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// epoch is the time of every file: an image is as old as its source, which its version names.
var epoch = time.Unix(0, 0).UTC()

// file is a file, folder or link of a layer.
type file struct {
	Entry
	content []byte // of a regular file
	regular bool
}

// base are the files that every image has: what programs look up about users and names, and a place for temporary files.
var base = []file{
	{Entry: Entry{Path: "etc/passwd", Mode: 0o644}, regular: true, content: fmt.Appendf(nil,
		"root:x:0:0:root:/:/sbin/nologin\nnonroot:x:%d:%d:nonroot:/:/sbin/nologin\n", nonroot, nonroot)},
	{Entry: Entry{Path: "etc/group", Mode: 0o644}, regular: true, content: fmt.Appendf(nil, "root:x:0:\nnonroot:x:%d:\n", nonroot)},
	{Entry: Entry{Path: "etc/nsswitch.conf", Mode: 0o644}, regular: true, content: []byte("hosts: files dns\n")},
	{Entry: Entry{Path: "tmp", Mode: 0o1777}},
}

// layer packs files, with all folders above them, into one layer.
func layer(files []file) (v1.Layer, error) {
	b, err := pack(files)
	if err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil },
		tarball.WithMediaType(types.OCILayer))
}

// pack writes files as a tar archive whose bytes depend on nothing but them: sorted, owned by root, all of the same time.
func pack(files []file) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range withFolders(files) {
		h := &tar.Header{Name: f.Path, Mode: cmp.Or(f.Mode, 0o755), ModTime: epoch, Format: tar.FormatUSTAR}
		switch {
		case f.regular:
			h.Typeflag, h.Size = tar.TypeReg, int64(len(f.content))
		case f.Target != "":
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Target, 0o777
		default:
			h.Typeflag, h.Name = tar.TypeDir, f.Path+"/"
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.Path, err)
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.Path, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	return buf.Bytes(), nil
}

// withFolders adds the folders above files that are not among them, and sorts all by path: a folder comes before what it holds.
func withFolders(files []file) []file {
	all := map[string]file{}
	for _, f := range files {
		for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
			if _, there := all[dir]; !there {
				all[dir] = file{Entry: Entry{Path: dir}}
			}
		}
		all[f.Path] = f
	}
	sorted := make([]file, 0, len(all))
	for _, f := range all {
		sorted = append(sorted, f)
	}
	slices.SortFunc(sorted, func(a, b file) int { return strings.Compare(a.Path, b.Path) })
	return sorted
}
