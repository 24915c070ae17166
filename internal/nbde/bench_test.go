package nbde

import (
	"maps"
	"slices"
	"testing"
)

func BenchmarkRecover(b *testing.B) {
	for _, c := range slices.Sorted(maps.Keys(all)) {
		b.Run(string(c), func(b *testing.B) {
			k, client := on(b, c), on(b, c)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.Recover(client.public); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParseAsk(b *testing.B) {
	body := blinded(b, DefaultCurve, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseAsk(body, DefaultCurve); err != nil {
			b.Fatal(err)
		}
	}
}
