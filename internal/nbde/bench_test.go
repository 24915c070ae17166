package nbde

import "testing"

func BenchmarkRecover(b *testing.B) {
	k, client := key(b, Exchange), key(b, Exchange)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Recover(client.public); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseAsk(b *testing.B) {
	body := blinded(b, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseAsk(body); err != nil {
			b.Fatal(err)
		}
	}
}
