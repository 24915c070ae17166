package fleet

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
)

// gauge reads what AIAS says of its own memory.
type gauge struct {
	url  string
	http *http.Client
}

func newGauge(server string, roots *x509.CertPool) *gauge {
	return &gauge{server + protocol.PathMetrics, &http.Client{
		Timeout:   answerTime,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}},
	}}
}

func (g *gauge) close() { g.http.CloseIdleConnections() }

// heap is the state of the Go heap of AIAS.
type heap struct {
	live int64 // bytes that the last garbage collection found in use, stacks included
	runs int64 // garbage collections so far
}

// Names of the metrics that a heap is read from.
const (
	metricGoal = "go_memstats_next_gc_bytes"
	metricGOGC = "go_gc_gogc_percent"
	metricRuns = "go_gc_duration_seconds_count"
)

func (g *gauge) heap(ctx context.Context) (heap, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url, nil)
	if err != nil {
		return heap{}, err
	}
	resp, err := g.http.Do(req)
	if err != nil {
		return heap{}, fmt.Errorf("read the metrics of AIAS: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	return readHeap(io.LimitReader(resp.Body, maxAnswer))
}

// readHeap reads the metrics in Prometheus' text form. The collector sets its next goal to what it found in use plus GOGC percent.
func readHeap(r io.Reader) (heap, error) {
	values := map[string]float64{metricGOGC: 100}
	s := bufio.NewScanner(r)
	for s.Scan() {
		name, value, ok := strings.Cut(s.Text(), " ")
		if !ok || name != metricGoal && name != metricGOGC && name != metricRuns {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return heap{}, fmt.Errorf("read the metrics of AIAS: %w", err)
		}
		values[name] = v
	}
	if err := s.Err(); err != nil {
		return heap{}, fmt.Errorf("read the metrics of AIAS: %w", err)
	}
	if values[metricGoal] == 0 {
		return heap{}, fmt.Errorf("the metrics of AIAS lack %s", metricGoal)
	}
	return heap{int64(values[metricGoal] / (1 + values[metricGOGC]/100)), int64(values[metricRuns])}, nil
}

// settleTime bounds the wait for a garbage collection.
const settleTime = 5 * time.Second

// settle keeps AIAS at work until its collector has run twice, and returns the memory in use then.
func (g *gauge) settle(ctx context.Context, work func(ctx context.Context) error) (heap, error) {
	first, err := g.heap(ctx)
	if err != nil {
		return first, err
	}
	for end := time.Now().Add(settleTime); ; {
		if err := work(ctx); err != nil {
			return heap{}, err
		}
		h, err := g.heap(ctx)
		if err != nil || h.runs >= first.runs+2 || time.Now().After(end) {
			return h, err
		}
	}
}
