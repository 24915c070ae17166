package ima_test

import (
	"errors"
	"testing"

	"touchstone.dev/touchstone/internal/ima"
	"touchstone.dev/touchstone/internal/ima/imatest"
	"touchstone.dev/touchstone/internal/tpm"
)

func TestCheckBootAggregate(t *testing.T) {
	bank := func(alg tpm.Alg, n int) *tpm.Bank {
		b := &tpm.Bank{Alg: alg}
		for i := range n {
			b.Values[i] = make([]byte, alg.Size())
			b.Values[i][0] = byte(i)
		}
		return b
	}
	changed := func(b *tpm.Bank, i int) *tpm.Bank {
		b.Values[i] = append([]byte{0xee}, b.Values[i][1:]...)
		return b
	}
	// A kernel that took up other banks but not yet PCR 8 and 9.
	short := bank(tpm.AlgSHA256, 8)
	h := tpm.AlgSHA256.Hash().New()
	for _, v := range short.Values[:8] {
		h.Write(v)
	}
	for _, test := range []struct {
		name   string
		entry  func(*imatest.Builder)
		quoted *tpm.Bank
		want   error
	}{
		{"sha256", func(b *imatest.Builder) { b.Aggregate("ima-ng", bank(tpm.AlgSHA256, 10)) }, bank(tpm.AlgSHA256, 10), nil},
		{"sha384", func(b *imatest.Builder) { b.Aggregate("ima-ng", bank(tpm.AlgSHA384, 10)) }, bank(tpm.AlgSHA384, 24), nil},
		{"sha1", func(b *imatest.Builder) { b.Aggregate("ima", bank(tpm.AlgSHA1, 8)) }, bank(tpm.AlgSHA1, 8), nil},
		{"PCR 0 to 7", func(b *imatest.Builder) {
			b.Add("ima-ng", imatest.Fields{Alg: tpm.AlgSHA256, Digest: h.Sum(nil), Path: ima.AggregateName})
		}, bank(tpm.AlgSHA256, 10), nil},
		{"PCR 9 differs", func(b *imatest.Builder) { b.Aggregate("ima-ng", bank(tpm.AlgSHA256, 10)) }, changed(bank(tpm.AlgSHA256, 10), 9), ima.ErrAggregate},
		{"PCR 0 differs", func(b *imatest.Builder) { b.Aggregate("ima-ng", bank(tpm.AlgSHA256, 10)) }, changed(bank(tpm.AlgSHA256, 10), 0), ima.ErrAggregate},
		{"PCR 9 not quoted", func(b *imatest.Builder) { b.Aggregate("ima-ng", bank(tpm.AlgSHA256, 10)) }, bank(tpm.AlgSHA256, 9), ima.ErrNotComputable},
		{"other bank", func(b *imatest.Builder) { b.Aggregate("ima-ng", bank(tpm.AlgSHA1, 8)) }, bank(tpm.AlgSHA256, 10), ima.ErrNotComputable},
		{"no TPM", func(b *imatest.Builder) {
			b.Add("ima-ng", imatest.Fields{Alg: tpm.AlgSHA256, Digest: make([]byte, 32), Path: ima.AggregateName})
		}, bank(tpm.AlgSHA256, 10), ima.ErrAggregate},
		{"another entry first", func(b *imatest.Builder) { b.Files(1) }, bank(tpm.AlgSHA256, 10), ima.ErrAggregate},
		{"violation", func(b *imatest.Builder) {
			b.Add("ima-ng", imatest.Fields{Alg: tpm.AlgSHA256, Violation: true, Path: ima.AggregateName})
		}, bank(tpm.AlgSHA256, 10), ima.ErrAggregate},
	} {
		b := imatest.New()
		test.entry(b)
		res, err := ima.Verify(b.Bytes(), ima.State{}, b.PCRs())
		if err != nil {
			t.Fatal(err)
		}
		banks := map[tpm.Alg]*tpm.Bank{test.quoted.Alg: test.quoted}
		if err := ima.CheckBootAggregate(res.Aggregate, banks); !errors.Is(err, test.want) {
			t.Errorf("CheckBootAggregate(%s): got %v, want %v", test.name, err, test.want)
		}
		if err := res.State.CheckBootAggregate(banks); !errors.Is(err, test.want) {
			t.Errorf("State.CheckBootAggregate(%s): got %v, want %v", test.name, err, test.want)
		}
	}
}
