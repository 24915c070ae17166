package reference

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
	"strings"
)

// fileTable finds files by digest: entries in order of the first bits of their digests, and where each such prefix begins, as in the
// fan-out table of a git pack. A look-up waits for memory twice, which for 200,000 files is most of its cost and half of what a map takes;
// the waits of many look-ups overlap, see findAll. Digests are evenly distributed, so that a prefix has about one entry. It holds no
// pointers for the garbage collector to follow. The zero table knows nothing.
type fileTable struct {
	entries []fileEntry
	first   []uint32 // index of the first entry of each prefix; one more at the end
	shift   int
	paths   string // of all files, one behind the other
}

// fileEntry is one file in little space: 200,000 of them are kept.
type fileEntry struct {
	digest     [sha256.Size]byte
	path, size uint32 // where its path is in paths
	source     uint32 // into names
	module     int32  // into modules, -1 for what is no module
}

// namedFile is what becomes a fileEntry.
type namedFile struct {
	digest [sha256.Size]byte
	path   string
	source uint32
	module int32
}

// newFileTable makes a table. Of files with one digest, the first counts.
func newFileTable(files []namedFile) (fileTable, error) {
	total := 0
	for i := range files {
		total += len(files[i].path)
	}
	width := bits.Len(uint(len(files)))
	if total > math.MaxUint32 || width > 31 {
		return fileTable{}, errors.New("too many files: their paths take more than 4 GiB")
	}
	t := fileTable{entries: make([]fileEntry, len(files)), first: make([]uint32, 1<<width+1), shift: 32 - width}
	for i := range files {
		t.first[t.prefix(&files[i].digest)+1]++
	}
	for i := 1; i < len(t.first); i++ {
		t.first[i] += t.first[i-1]
	}
	next := append([]uint32(nil), t.first...)
	var paths strings.Builder
	paths.Grow(total)
	for i := range files {
		f := &files[i]
		p := t.prefix(&f.digest)
		t.entries[next[p]] = fileEntry{digest: f.digest, path: uint32(paths.Len()), size: uint32(len(f.path)), source: f.source, module: f.module}
		next[p]++
		paths.WriteString(f.path)
	}
	t.paths = paths.String()
	t.compact()
	return t, nil
}

// compact drops the later ones of entries with one digest.
func (t *fileTable) compact() {
	kept := t.entries[:0]
	begin := t.first[0]
	for p := range len(t.first) - 1 {
		end := t.first[p+1]
		t.first[p] = uint32(len(kept))
		for _, e := range t.entries[begin:end] {
			if search(kept[t.first[p]:], &e.digest) == nil {
				kept = append(kept, e)
			}
		}
		begin = end
	}
	t.first[len(t.first)-1] = uint32(len(kept))
	clear(t.entries[len(kept):])
	t.entries = kept
}

func (t *fileTable) prefix(digest *[sha256.Size]byte) uint32 {
	return binary.BigEndian.Uint32(digest[:]) >> t.shift
}

func (t *fileTable) pathOf(e *fileEntry) string { return t.paths[e.path : e.path+e.size] }

// find returns the file with that digest, or nil.
func (t *fileTable) find(digest *[sha256.Size]byte) *fileEntry {
	if len(t.entries) == 0 {
		return nil
	}
	p := t.prefix(digest)
	return search(t.entries[t.first[p]:t.first[p+1]], digest)
}

// together is how many look-ups findAll takes at once.
const together = 32

// findAll is find for up to as many digests, some of which may be nil. No look-up needs the result of another, so that the processor waits for
// the memory of many of them at once.
func (t *fileTable) findAll(digests []*[sha256.Size]byte) (found [together]*fileEntry) {
	if len(t.entries) == 0 {
		return found
	}
	var begin, end [together]uint32
	for i, d := range digests {
		if d != nil {
			p := t.prefix(d)
			begin[i], end[i] = t.first[p], t.first[p+1]
		}
	}
	var heads [together]uint64 // read in a loop of its own, in which nothing branches on them
	for i := range digests {
		heads[i] = head(&t.entries[min(int(begin[i]), len(t.entries)-1)].digest)
	}
	for i, d := range digests {
		switch {
		case begin[i] == end[i]:
		case heads[i] == head(d):
			found[i] = search(t.entries[begin[i]:end[i]], d)
		default:
			found[i] = search(t.entries[begin[i]+1:end[i]], d)
		}
	}
	return found
}

func head(digest *[sha256.Size]byte) uint64 { return binary.LittleEndian.Uint64(digest[:]) }

func search(entries []fileEntry, digest *[sha256.Size]byte) *fileEntry {
	for i := range entries {
		if entries[i].digest == *digest {
			return &entries[i]
		}
	}
	return nil
}
