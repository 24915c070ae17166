package ima_test

import (
	"slices"
	"testing"

	"touchstone.dev/touchstone/internal/ima"
	"touchstone.dev/touchstone/internal/ima/imatest"
	"touchstone.dev/touchstone/internal/tpm"
)

func seeds(f *testing.F) [][]byte {
	return [][]byte{
		readBoot(f, "good").list, readBoot(f, "modules/after").list, worker().Bytes(), grow(imatest.New().BigEndian()).Bytes(),
		imatest.New().Add("ima", imatest.Fields{Digest: sha1Digest, Path: "/sbin/init"}).Bytes(),
		imatest.New().Add("evm-sig", imatest.Fields{Alg: tpm.AlgSHA256, Digest: imatest.Digest(1), Path: "/a", XattrNames: []string{"a"}, XattrValues: [][]byte{{1}}}).Bytes(),
		imatest.New().Add("ima-modsig", imatest.Fields{Alg: tpm.AlgSHA256, Digest: imatest.Digest(1), Path: "/a"}).Bytes(),
		imatest.New().Raw("d-ngv2|xattrvalues|n", []byte{1, 0, 0, 0, 7}).Bytes(),
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, list []byte) {
		end := 0
		err := ima.Parse(list, func(e *ima.Entry) error {
			if e.Offset != end && end != 0 {
				t.Errorf("entry %d at %d, want %d", e.Index, e.Offset, end)
			}
			end = e.Offset + 28 + len(e.Template) + len(e.Data)
			if e.Template != "ima" {
				end += 4
			}
			if len(e.TemplateHash) != 20 || len(e.Path) > ima.MaxPath {
				t.Errorf("entry %d: got %+v", e.Index, e)
			}
			return nil
		})
		if err == nil && end != len(list) {
			t.Errorf("entries end at %d of %d bytes without an error", end, len(list))
		}
	})
}

// FuzzVerify changes a list: the only lists that still replay are those that say the same up to the quoted value.
func FuzzVerify(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s, uint16(0))
	}
	b := worker(tpm.AlgSHA256, tpm.AlgSHA1)
	good := b.Bytes()
	half := imatest.New(tpm.AlgSHA256, tpm.AlgSHA1).Aggregate("ima-sig", &tpm.Bank{Alg: tpm.AlgSHA256})
	res, err := ima.Verify(half.Bytes(), ima.State{}, half.PCRs())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, list []byte, keep uint16) {
		list = slices.Concat(good[:min(int(keep), len(good))], list)
		for _, from := range []ima.State{{}, res.State} {
			got, err := ima.Verify(list, from, b.PCRs())
			if err != nil {
				continue
			}
			want := good[from.Offset:]
			if len(list) < len(want) || string(list[:len(want)]) != string(want) {
				t.Fatalf("Verify accepts a list that was not measured: %+v", got)
			}
			if n := len(entries(got)); n != got.Matched || uint64(n) != got.State.Entries-from.Entries {
				t.Fatalf("Each: got %d entries, want %d", n, got.Matched)
			}
		}
	})
}
