package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/protocol"
)

// TestHostileChallenges: whatever AIAS asks for, the agent answers with Evidence or an error of bounded length, and does not blame its TPM.
func TestHostileChallenges(t *testing.T) {
	many := make([]protocol.Selection, 100000)
	for i := range many {
		many[i] = protocol.Selection{Bank: "sha256", PCRs: []int{i}}
	}
	for _, tt := range []struct {
		name   string
		change func(*protocol.Challenge)
		quotes int // 0: refused
	}{
		{"nonce of 1 MB", func(c *protocol.Challenge) { c.Nonce = make([]byte, 1<<20) }, 0},
		{"nonce of 64 bytes", func(c *protocol.Challenge) { c.Nonce = make([]byte, 64) }, 1},
		{"list from the end of numbers", func(c *protocol.Challenge) { c.IMAOffset, c.ResetCount = math.MaxUint64, 7 }, 1},
		{"list from beyond", func(c *protocol.Challenge) { c.IMAOffset, c.ResetCount = 1<<41, 7 }, 1},
		{"one bank again and again", func(c *protocol.Challenge) { c.Quote = many }, 1},
		{"unknown bank", func(c *protocol.Challenge) {
			c.Quote = []protocol.Selection{{Bank: strings.Repeat("\x1b[", 1<<19), PCRs: []int{1}}}
		}, 0},
		{"no selection", func(c *protocol.Challenge) { c.Quote = nil }, 0},
		{"PCRs that no TPM has", func(c *protocol.Challenge) { c.Quote[0].PCRs = []int{-1, math.MaxInt, math.MinInt, 24} }, 0},
		{"digests of odd length", func(c *protocol.Challenge) { c.EventLogDigest, c.FactsDigest = []byte{1}, make([]byte, 1<<20) }, 1},
		{"interval below zero", func(c *protocol.Challenge) { c.Interval = math.MinInt }, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			ch := testChallenge()
			tt.change(&ch)
			w.link.challenge = ch
			s := &attester{node: "worker-1", tpm: w.tpm, host: w.host, link: w.link, now: time.Now}
			r := s.attest(context.Background(), TriggerStart)
			switch {
			case tt.quotes > 0 && (r.Err != nil || len(w.link.docs[0].Quotes) != tt.quotes):
				t.Errorf("attest: got %v, want Evidence with %d quotes", r.Err, tt.quotes)
			case tt.quotes == 0 && (r.Err == nil || errors.Is(r.Err, errTPM) || len(r.Err.Error()) > 1000):
				t.Errorf("attest: got %.2000v, want a short error that is not the TPM's", r.Err)
			}
			if tt.quotes > 0 && string(w.link.docs[0].IMA) != "list" {
				t.Errorf("IMA list: got %q from %d, want all of it", w.link.docs[0].IMA, w.link.docs[0].IMAOffset)
			}
		})
	}
}

// TestHostileIntervals: an agent neither storms nor sleeps for ever.
func TestHostileIntervals(t *testing.T) {
	for _, n := range []int{0, -1, math.MinInt, math.MaxInt, math.MaxInt / int(time.Second), 1 << 40} {
		interval := time.Duration(n) * time.Second
		if got := min(max(interval, minInterval), maxInterval); got < minInterval || got > maxInterval {
			t.Errorf("interval %d: got %v, want %v to %v", n, got, minInterval, maxInterval)
		}
	}
}

// TestHostileAnswers: answers of AIAS, or of something that stands in for it, are errors; none is read beyond its bound.
func TestHostileAnswers(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"huge": func(w http.ResponseWriter, _ *http.Request) {
			for range 100 {
				_, _ = w.Write(bytes.Repeat([]byte("a"), 1<<16))
			}
		},
		"deep":               says(200, strings.Repeat("[", 500000)),
		"deep in a field":    says(200, `{"nonce":`+strings.Repeat("[", 500000)),
		"not JSON":           says(200, "<html>"),
		"nothing":            says(200, ""),
		"other type":         says(200, `{"interval":"soon"}`),
		"number too large":   says(200, `{"imaOffset":18446744073709551616}`),
		"negative offset":    says(200, `{"imaOffset":-1}`),
		"refusal of a proxy": says(502, "<html>\x1b[2J"),
		"refusal with tricks": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "999999999999")
			says(429, `{"title":"\u001b[2Jno","status":200}`)(w, nil)
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://localhost:1/", http.StatusTemporaryRedirect)
		},
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "{")
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewTLSServer(answer)
			defer srv.Close()
			c := &Client{base: srv.URL, http: srv.Client()}
			c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			ch, err := c.Challenge(context.Background())
			if err == nil || strings.ContainsRune(err.Error(), 0x1b) || len(err.Error()) > 5000 {
				t.Errorf("Challenge(): got %+v, %.300q; want a short printable error", ch, fmt.Sprint(err))
			}
			var r *Refusal
			if errors.As(err, &r) && (r.RetryAfter > maxRetryAfter || r.Status/100 == 2) {
				t.Errorf("refusal: got status %d, wait %v; want no success and at most %v", r.Status, r.RetryAfter, maxRetryAfter)
			}
		})
	}
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); fmt.Fprint(w, body) }
}

// shrinking is a host whose logs vanish or shrink between two attestations.
type shrinking struct{ *fakeHost }

func (shrinking) IMA(offset uint64) ([]byte, error) {
	if offset > 0 {
		return nil, evidence.ErrOffset
	}
	return nil, nil
}
func (shrinking) EventLog() ([]byte, error) { return nil, nil }

// TestLogsVanish: the Evidence shows what is there; AIAS judges it.
func TestLogsVanish(t *testing.T) {
	ch := testChallenge()
	ch.IMAOffset, ch.ResetCount, ch.EventLogDigest = 4, 7, make([]byte, 32)
	doc, err := collect(newFakeTPM(), shrinking{&fakeHost{facts: map[string][]byte{}}}, "worker-1", &ch)
	if err != nil || len(doc.IMA) != 0 || doc.IMAOffset != 0 || doc.EventLog != nil || doc.EventLogDigest != nil {
		t.Errorf("collect without logs: got %+v, %v; want Evidence without logs", doc, err)
	}
}
