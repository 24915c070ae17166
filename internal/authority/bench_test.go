package authority

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync/atomic"
	"testing"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/protocol"
)

// inProcess answers with the handler itself, as if the connection had shown the machine's certificate.
func (m *machine) inProcess(h http.Handler, d *evidence.Document) (*protocol.Attestation, error) {
	body, err := evidence.Encode(d)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(m.cert))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	r := httptest.NewRequest(http.MethodPost, protocol.PathAttest, bytes.NewReader(body))
	r.Header.Set("Content-Type", protocol.MediaTypeEvidence)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: [][]*x509.Certificate{{cert}}}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	if rec.Code != http.StatusOK {
		return nil, fmt.Errorf("status %d: %s", rec.Code, rec.Body)
	}
	out := &protocol.Attestation{}
	return out, json.Unmarshal(rec.Body.Bytes(), out)
}

// BenchmarkAttestHandler is a steady attestation through the whole handler with the database, without TLS and with a verifier that only checks
// the quote; the time includes making the quote, which is the node's work (some 35 us).
func BenchmarkAttestHandler(b *testing.B) {
	w := newWorld(b)
	h := w.Handler()
	machines := make([]*machine, 64)
	for i := range machines {
		machines[i] = w.enrolled(fmt.Sprint("worker-", i))
		machines[i].attest()
	}
	var next atomic.Int64
	b.ResetTimer()
	b.SetParallelism(len(machines) / runtime.GOMAXPROCS(0))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		m := machines[next.Add(1)%int64(len(machines))]
		for pb.Next() {
			out, err := m.inProcess(h, m.document(m.next))
			if err != nil {
				b.Error(err)
				return
			}
			m.next = out.Next
		}
	})
}

// BenchmarkNodeMemory reports the bytes of the heap that AIAS keeps for a node between attestations, connections not counted.
func BenchmarkNodeMemory(b *testing.B) {
	w := newWorld(b)
	m := w.enrolled("worker-0")
	m.attest()
	n := w.node("worker-0")
	records, err := w.store.Nodes(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	const count = 2000
	for b.Loop() {
		keep := make([]*node, count)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range keep {
			r := records[0]
			r.Name = fmt.Sprint("worker-", i)
			if keep[i], err = w.newNode(r); err != nil {
				b.Fatal(err)
			}
			keep[i].set(n.current(), 1, w.clock.Now())
			w.expiry.set(keep[i], w.clock.Now())
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/count, "B/node")
		for _, k := range keep {
			w.expiry.set(k, k.rebindTill)
		}
	}
}

func BenchmarkEnrol(b *testing.B) {
	w := newWorld(b)
	w.enrols.SetLimit(1e9)
	w.enrols.SetBurst(1 << 30)
	m := w.machine("worker-0")
	r := m.request(w.token(protocol.TokenRequest{Uses: maxUses}))
	for b.Loop() {
		if _, err := w.enrol(context.Background(), identity{}, r); err != nil {
			b.Fatal(err)
		}
	}
}
