package reference

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"
)

func TestFileTable(t *testing.T) {
	digest := func(i int) [sha256.Size]byte { return sha256.Sum256(binary.BigEndian.AppendUint32(nil, uint32(i))) }
	for _, n := range []int{0, 1, 2, 3, 1000} {
		var files []namedFile
		for i := range n {
			same := digest(i)
			same[31]++ // another file under the same prefix
			files = append(files, namedFile{digest: digest(i), path: fmt.Sprint(i), source: uint32(i)}, namedFile{digest: same, source: uint32(n + i)},
				namedFile{digest: digest(i / 2), path: "later", source: uint32(2*n + i)})
		}
		table, err := newFileTable(files)
		if err != nil {
			t.Fatalf("newFileTable(%d files): %v", len(files), err)
		}
		if got := len(table.entries); got != 2*n {
			t.Errorf("newFileTable(%d files twice): got %d entries, want %d", 2*n, got, 2*n)
		}
		for i := range 2 * n {
			d := digest(i)
			e := table.find(&d)
			if all := table.findAll([]*[sha256.Size]byte{nil, &d}); all[0] != nil || all[1] != e {
				t.Errorf("findAll(%d of %d): got %+v, want %+v", i, n, all[:2], e)
			}
			switch {
			case i < n && (e == nil || e.source != uint32(i) || table.pathOf(e) != fmt.Sprint(i)):
				t.Errorf("find(%d of %d): got %+v, want the first entry of that digest", i, n, e)
			case i >= n && e != nil:
				t.Errorf("find(%d of %d): got %+v, want none", i, n, e)
			}
		}
	}
	var zero fileTable
	if e := zero.find(new([sha256.Size]byte)); e != nil {
		t.Errorf("find in the zero table: got %+v, want none", e)
	}
}
