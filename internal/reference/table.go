package reference

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
)

// fileTable finds files by digest: entries in order of the first bits of their digests, and where each such prefix begins, as in the
// fan-out table of a git pack. A look-up waits for memory twice, which for 200,000 files is most of its cost and half of what a map takes.
// Digests are evenly distributed, so that a prefix has about one entry. The zero table knows nothing.
type fileTable struct {
	entries []fileEntry
	first   []uint32 // index of the first entry of each prefix; one more at the end
	shift   int
}

// fileEntry is one file in little space: 200,000 of them are kept.
type fileEntry struct {
	digest [sha256.Size]byte
	path   string
	source uint32 // into names
	module int32  // into modules, -1 for what is no module
}

// newFileTable makes a table. Of entries with one digest, the first counts.
func newFileTable(entries []fileEntry) fileTable {
	width := bits.Len(uint(len(entries)))
	t := fileTable{entries: make([]fileEntry, len(entries)), first: make([]uint32, 1<<width+1), shift: 32 - width}
	for i := range entries {
		t.first[t.prefix(&entries[i].digest)+1]++
	}
	for i := 1; i < len(t.first); i++ {
		t.first[i] += t.first[i-1]
	}
	next := append([]uint32(nil), t.first...)
	for i := range entries {
		p := t.prefix(&entries[i].digest)
		t.entries[next[p]] = entries[i]
		next[p]++
	}
	t.compact()
	return t
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

// find returns the file with that digest, or nil.
func (t *fileTable) find(digest *[sha256.Size]byte) *fileEntry {
	if len(t.entries) == 0 {
		return nil
	}
	p := t.prefix(digest)
	return search(t.entries[t.first[p]:t.first[p+1]], digest)
}

func search(entries []fileEntry, digest *[sha256.Size]byte) *fileEntry {
	for i := range entries {
		if entries[i].digest == *digest {
			return &entries[i]
		}
	}
	return nil
}
