package authority

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/tpm"
)

// worker is a machine with the PCRs of its boot.
type worker struct {
	*machine
	bank *tpm.Bank
}

// benchFleet runs steady attestations of 64 machines at the same time, each with asset tags or none; send is the way to AIAS.
func benchFleet(b *testing.B, tags map[string]string, send func(h http.Handler, m worker) (*protocol.Attestation, error)) {
	w := realWorld(b)
	h := w.Handler()
	fleet := make(chan worker, 64)
	for i := range cap(fleet) {
		m := w.enrolled(fmt.Sprint("worker-", i))
		bank := m.booted("good")
		if _, err := m.send(m.quoted(m.next, bank)); err != nil {
			b.Fatal(err)
		}
		if tags != nil {
			if _, err := w.admin.SetTags(b.Context(), m.name, tags); err != nil {
				b.Fatal(err)
			}
			if _, err := m.send(m.quoted(m.next, bank)); err != nil { // is told of them
				b.Fatal(err)
			}
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
	benchFleet(b, nil, func(h http.Handler, m worker) (*protocol.Attestation, error) {
		return m.inProcess(h, m.quoted(m.next, m.bank))
	})
}

// BenchmarkAttestLoopback is the same over HTTPS on loopback, with the nodes' side of it in the same time.
func BenchmarkAttestLoopback(b *testing.B) {
	benchFleet(b, nil, func(_ http.Handler, m worker) (*protocol.Attestation, error) { return m.send(m.quoted(m.next, m.bank)) })
}

// BenchmarkAttestTagged is BenchmarkAttestReal of machines with asset tags: each brings a certificate of its NV index, made in the same time.
func BenchmarkAttestTagged(b *testing.B) {
	benchFleet(b, munich, func(h http.Handler, m worker) (*protocol.Attestation, error) {
		t := tagMachine{machine: m.machine, bank: m.bank, nv: m.next.AssetTag.Record}
		out, err := m.inProcess(h, t.answer())
		if err == nil && !strings.Contains(decoded(out.Result), `"country":"de"`) {
			err = errors.New("the result has no tags")
		}
		return out, err
	})
}

// decoded is the payload of a JWT, not verified.
func decoded(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
	return string(payload)
}
