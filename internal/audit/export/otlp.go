package export

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"touchstone.dev/touchstone/internal/audit/shown"
)

const (
	requestTime = 30 * time.Second
	maxAnswer   = 64 << 10
)

// otlpSink posts to a receiver of OTLP over HTTP, in protobuf.
type otlpSink struct {
	cfg    OTLP
	x      *Exporter
	client *http.Client
}

func newOTLPSink(cfg OTLP, x *Exporter) *otlpSink { return &otlpSink{cfg: cfg, x: x} }

func (s *otlpSink) settle() time.Duration { return 0 } // its answer is the acknowledgement
func (s *otlpSink) broken() error         { return nil }

func (s *otlpSink) close() {
	if s.client != nil {
		s.client.CloseIdleConnections()
		s.client = nil
	}
}

// connect makes a client; after a failure, anew, as certificates are renewed.
func (s *otlpSink) connect() error {
	if s.client != nil {
		return nil
	}
	c, err := s.cfg.config()
	if err != nil {
		return err
	}
	t := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // it is one
	t.TLSClientConfig = c
	s.client = &http.Client{Transport: t, Timeout: requestTime, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return nil
}

func (s *otlpSink) send(ctx context.Context, node string, items []Item) (err error) {
	if err := s.connect(); err != nil {
		return err
	}
	req, err := s.request(ctx, node, items)
	if err != nil {
		return err
	}
	resp, err := s.client.Do(req) //nolint:gosec // to where the operator wants it
	if err != nil {
		s.close()
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch code := resp.StatusCode; {
	case code == http.StatusBadRequest || code == http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%w: %s", errRefused, resp.Status)
	case code/100 != 2:
		// Others are no word on the entries: a token that ended, a path that is not there yet, a receiver that is full.
		return &later{fmt.Errorf("the receiver answers %s", resp.Status), retryAfter(resp.Header)}
	case err != nil:
		return err
	}
	if rejected, why := partial(answer); rejected > 0 {
		s.x.refused.Add(rejected)
		s.x.log.Error("the destination refuses audit events: they are left out", "events", rejected, "from", items[0].Entry.ID, "to", items[len(items)-1].Entry.ID, "why", shown.Clean(why))
	}
	return nil
}

func (s *otlpSink) request(ctx context.Context, node string, items []Item) (*http.Request, error) {
	records := make([]*logs.LogRecord, len(items))
	for i := range items {
		records[i] = shown.Record(items[i].Entry, items[i].Received)
	}
	raw, err := proto.Marshal(shown.Logs(node, records)) // LogsData and ExportLogsServiceRequest are the same on the wire
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err = z.Write(raw); err == nil {
		err = z.Close()
	}
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.cfg.URL, &b)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "gzip")
	if s.cfg.TokenFile != "" {
		token, err := os.ReadFile(s.cfg.TokenFile)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	return req, nil
}

func retryAfter(h http.Header) time.Duration {
	n, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || n < 0 {
		return 0
	}
	return time.Duration(min(n, 3600)) * time.Second
}

// partial reads an ExportLogsServiceResponse: how many records were rejected for good (field 1: 1), and why (1: 2). What is no such answer says nothing.
func partial(b []byte) (rejected uint64, why string) {
	walk(b, func(num protowire.Number, _ uint64, inner []byte) {
		if num != 1 {
			return
		}
		walk(inner, func(num protowire.Number, v uint64, text []byte) {
			switch num {
			case 1:
				rejected = v
			case 2:
				why = string(text)
			}
		})
	})
	return min(rejected, maxItems), why
}

func walk(b []byte, fn func(protowire.Number, uint64, []byte)) {
	for len(b) > 0 {
		num, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return
		}
		b = b[n:]
		var v uint64
		var inner []byte
		switch kind {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			inner, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, kind, b)
		}
		if n < 0 {
			return
		}
		fn(num, v, inner)
		b = b[n:]
	}
}
