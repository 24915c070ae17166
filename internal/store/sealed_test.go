package store

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestPlacesAreAll: a column whose name says that it holds sealed secrets is one that a rotation and a backup know.
func TestPlacesAreAll(t *testing.T) {
	ctx := context.Background()
	s, err := Open(ctx, filepath.Join(t.TempDir(), "db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // the test is over
	columns, err := list(ctx, s.read, func(scan func(...any) error) (string, error) {
		var table, column string
		err := scan(&table, &column)
		return table + "." + column, err
	}, `SELECT m.name, c.name FROM sqlite_schema m, pragma_table_info(m.name) c WHERE m.type = 'table' AND c.name IN ('sealed', 'wrapped')`)
	if err != nil || len(columns) < 2 {
		t.Fatalf("columns with sealed secrets: got %q, %v", columns, err)
	}
	var known []string
	for _, p := range places {
		known = append(known, p.table+"."+p.column)
	}
	for _, c := range columns {
		if !slices.Contains(known, c) {
			t.Errorf("%s holds sealed secrets and is not among the places: no rotation and no backup would open them", c)
		}
	}
	if !slices.IsSortedFunc(places, func(a, b place) int { return strings.Compare(a.name, b.name) }) {
		t.Error("places are not sorted by name")
	}
}

// TestReseal: secrets come in pages, in order, and only those that are as they were are changed.
func TestReseal(t *testing.T) {
	ctx := context.Background()
	s, err := Open(ctx, filepath.Join(t.TempDir(), "db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // the test is over
	values := map[string][]byte{"a": []byte("TSS1one"), "b": []byte("plain"), "c": []byte("TSS1two"), "d": []byte("TSS1three")}
	if err := s.PutSettings(ctx, values, nil); err != nil {
		t.Fatal(err)
	}
	var got []Sealed
	for place, key := "", ""; ; {
		page, err := s.SealedAfter(ctx, place, key, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		got = append(got, page...)
		place, key = page[len(page)-1].Place, page[len(page)-1].Key
	}
	if len(got) != 3 || got[0].Key != "a" || got[2].Key != "d" || got[1].AAD != "setting/c" {
		t.Fatalf("SealedAfter(): got %+v, want a, c and d", got)
	}
	if err := s.PutSettings(ctx, map[string][]byte{"c": []byte("TSS1other"), "d": nil}, nil); err != nil {
		t.Fatal(err)
	}
	n, err := s.Reseal(ctx, got, [][]byte{[]byte("TSS1new"), []byte("TSS1new"), []byte("TSS1new")})
	if err != nil || n != 1 {
		t.Errorf("Reseal(): got %d, %v; want 1", n, err)
	}
	for key, want := range map[string]string{"a": "TSS1new", "c": "TSS1other"} {
		if b, err := s.Setting(ctx, key); err != nil || string(b) != want {
			t.Errorf("setting %s: got %q, %v; want %q", key, b, err, want)
		}
	}
	if _, err := s.Reseal(ctx, []Sealed{{Place: "nowhere"}}, [][]byte{nil}); err == nil {
		t.Error("Reseal() in an unknown place: got no error")
	}
}
