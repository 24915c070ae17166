package ima_test

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/ima"
	"touchstone.dev/touchstone/internal/ima/imatest"
	"touchstone.dev/touchstone/internal/reference"
	"touchstone.dev/touchstone/internal/tpm"
)

// BenchmarkVerify is the whole of what a list costs: replay in one SHA-256 bank, entries read, every digest looked up among
// 200,000 known ones.
func BenchmarkVerify(b *testing.B) {
	source := reference.Source{Kind: reference.KindFiles, Name: "known", SHA256: strings.Repeat("00", 32)}
	for i := range 200_000 {
		source.Files = append(source.Files, reference.File{Path: fmt.Sprintf("/usr/bin/%d", i), SHA256: hex.EncodeToString(imatest.Digest(i))})
	}
	known, err := reference.Compile([]reference.Source{source})
	if err != nil {
		b.Fatal(err)
	}
	ask := make([]reference.FileQuery, 0, 64)
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
				res.Each(func(some []ima.Entry) {
					ask = ask[:0]
					for i := range some {
						ask = append(ask, reference.FileQuery{Alg: some[i].Alg, Digest: some[i].Digest})
					}
					known.Files(ask)
					for i := range ask {
						if !ask[i].Known {
							b.Fatal("unknown digest")
						}
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
