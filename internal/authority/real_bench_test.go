package authority

import (
	"fmt"
	"net/http"
	"testing"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/tpm"
)

// worker is a machine with the PCRs of its boot.
type worker struct {
	*machine
	bank *tpm.Bank
}

// benchFleet runs steady attestations of 64 machines at the same time; send is the way to AIAS.
func benchFleet(b *testing.B, send func(h http.Handler, m worker) (*protocol.Attestation, error)) {
	w := realWorld(b)
	h := w.Handler()
	fleet := make(chan worker, 64)
	for i := range cap(fleet) {
		m := w.enrolled(fmt.Sprint("worker-", i))
		bank := m.booted("good")
		if _, err := m.send(m.quoted(m.next, bank)); err != nil {
			b.Fatal(err)
		}
		fleet <- worker{m, bank}
	}
	b.ResetTimer()
	b.SetParallelism(16)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		m := <-fleet
		for pb.Next() {
			out, err := send(h, m)
			if err != nil || !out.Trusted {
				b.Error(out, err)
				return
			}
			m.next = out.Next
		}
		fleet <- m
	})
}

// BenchmarkAttestReal is a steady attestation with the real verifier and the corpus's references, database included, TLS not. The time includes
// making the quote, which is the node's work.
func BenchmarkAttestReal(b *testing.B) {
	benchFleet(b, func(h http.Handler, m worker) (*protocol.Attestation, error) {
		return m.inProcess(h, m.quoted(m.next, m.bank))
	})
}

// BenchmarkAttestLoopback is the same over HTTPS on loopback, with the nodes' side of it in the same time.
func BenchmarkAttestLoopback(b *testing.B) {
	benchFleet(b, func(_ http.Handler, m worker) (*protocol.Attestation, error) { return m.send(m.quoted(m.next, m.bank)) })
}
