package ima_test

import (
	"fmt"
	"testing"

	"touchstone.dev/touchstone/internal/ima"
	"touchstone.dev/touchstone/internal/ima/imatest"
	"touchstone.dev/touchstone/internal/tpm"
)

// BenchmarkVerify is the whole of what a list costs: replay in one SHA-256 bank, entries read, every digest looked up among
// 200,000 known ones.
func BenchmarkVerify(b *testing.B) {
	known := make(map[[32]byte]uint32, 200_000)
	for i := range 200_000 {
		known[[32]byte(imatest.Digest(i))] = uint32(i)
	}
	for _, n := range []int{100, 1000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := imatest.New().Files(n)
			list, quoted := m.Bytes(), m.PCRs()
			b.ReportAllocs()
			for b.Loop() {
				res, err := ima.Verify(list, ima.State{}, quoted)
				if err != nil {
					b.Fatal(err)
				}
				res.Each(func(e *ima.Entry) {
					if _, ok := known[[32]byte(e.Digest)]; !ok {
						b.Fatal("unknown digest")
					}
				})
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/entry")
		})
	}
}

// BenchmarkVerifyModes shows what other banks and older kernels cost.
func BenchmarkVerifyModes(b *testing.B) {
	for name, m := range map[string]*imatest.Builder{
		"padded": imatest.New().Mode(tpm.AlgSHA256, ima.ModePad),
		"3banks": imatest.New(tpm.AlgSHA1, tpm.AlgSHA256, tpm.AlgSHA384),
	} {
		b.Run(name, func(b *testing.B) {
			m.Files(10_000)
			list, quoted := m.Bytes(), m.PCRs()
			for b.Loop() {
				if _, err := ima.Verify(list, ima.State{}, quoted); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
