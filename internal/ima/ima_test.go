package ima_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/ima"
	"touchstone.dev/touchstone/internal/tpm"
)

// boot is a captured boot of the shared corpus.
type boot struct {
	list  []byte
	banks map[tpm.Alg]*tpm.Bank
}

func (b boot) pcr10() map[tpm.Alg][]byte {
	m := map[tpm.Alg][]byte{}
	for alg, bank := range b.banks {
		m[alg] = bank.Values[ima.PCR]
	}
	return m
}

// entries returns copies of what Each gives.
func entries(res *ima.Result) []ima.Entry {
	out := make([]ima.Entry, 0, res.Matched)
	res.Each(func(some []ima.Entry) { out = append(out, some...) })
	return out
}

func readBoot(t testing.TB, name string) boot {
	t.Helper()
	dir := filepath.Join("../../test/boots/corpus", name)
	list, err := os.ReadFile(filepath.Join(dir, "ima.bin"))
	if err != nil {
		t.Fatal(err)
	}
	b := boot{list: list, banks: map[tpm.Alg]*tpm.Bank{}}
	files, err := filepath.Glob(filepath.Join(dir, "pcrs-*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no PCR values in %s: %v", dir, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		alg, err := tpm.ParseHashAlg(name[strings.LastIndex(name, "-")+1:])
		if err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var values map[string]string
		if err := json.Unmarshal(raw, &values); err != nil {
			t.Fatal(err)
		}
		bank := &tpm.Bank{Alg: alg}
		for k, v := range values {
			i, err := strconv.Atoi(k)
			if err != nil {
				t.Fatal(err)
			}
			if bank.Values[i], err = hex.DecodeString(v); err != nil {
				t.Fatal(err)
			}
		}
		b.banks[alg] = bank
	}
	return b
}

func TestVerifyRealLists(t *testing.T) {
	for _, test := range []struct {
		name                       string
		entries, violations, banks int
	}{
		{"good", 12, 0, 1}, {"good-actions/after", 14, 0, 1}, {"nbde-systemd", 470, 1, 1}, {"banks3", 12, 0, 3}, {"modules/after", 15, 0, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := readBoot(t, test.name)
			res, err := ima.Verify(b.list, ima.State{}, b.pcr10())
			if err != nil {
				t.Fatalf("Verify: %v", err)
			}
			if res.Matched != test.entries || len(entries(res)) != test.entries || res.Unmatched != 0 {
				t.Errorf("Verify: got %d matched, %d unmatched, want %d, 0", res.Matched, res.Unmatched, test.entries)
			}
			if len(res.State.Banks) != test.banks || res.State.Offset != uint64(len(b.list)) || res.State.Order != ima.LittleEndian {
				t.Errorf("Verify: got state %+v, want %d banks at offset %d", res.State, test.banks, len(b.list))
			}
			violations := 0
			for _, e := range entries(res) {
				if e.Violation {
					violations++
				}
				if e.Problem != "" || e.Alg != tpm.AlgSHA256 || e.Path == "" || e.Template != "ima-sig" {
					t.Errorf("entry %d: got %+v, want an ima-sig entry without problem", e.Index, e)
				}
			}
			if violations != test.violations {
				t.Errorf("Verify: got %d violations, want %d", violations, test.violations)
			}
			if err := ima.CheckBootAggregate(res.Aggregate, b.banks); err != nil {
				t.Errorf("CheckBootAggregate: %v", err)
			}
			if err := res.State.CheckBootAggregate(b.banks); err != nil {
				t.Errorf("State.CheckBootAggregate: %v", err)
			}
		})
	}
}

// A list read in two parts says the same as one read whole.
func TestResumeRealList(t *testing.T) {
	b := readBoot(t, "nbde-systemd")
	var offsets []int
	if err := ima.Parse(b.list, func(e *ima.Entry) error { offsets = append(offsets, e.Offset); return nil }); err != nil {
		t.Fatal(err)
	}
	// The value of PCR 10 in the middle is found by replaying: that a part replays to nothing quoted is the error case.
	if _, err := ima.Verify(b.list[:offsets[200]], ima.State{}, b.pcr10()); !errors.Is(err, ima.ErrNoPrefix) {
		t.Errorf("Verify(first 200 entries): got %v, want ErrNoPrefix", err)
	}
	res, err := ima.Verify(b.list, ima.State{}, b.pcr10())
	if err != nil {
		t.Fatal(err)
	}
	again, err := ima.Verify(nil, res.State, b.pcr10())
	if err != nil || again.Matched != 0 || again.State.Entries != 470 {
		t.Errorf("Verify(nothing new): got %+v, %v, want no entries and the same state", again, err)
	}
}
