package cluster

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"touchstone.dev/touchstone/internal/cluster/board"
	"touchstone.dev/touchstone/internal/cluster/feed"
)

// metrics are what /metrics shows besides what controller-runtime tells of its queues and requests.
type metrics struct {
	results   *prometheus.CounterVec
	writes    *prometheus.CounterVec
	evictions *prometheus.CounterVec
	joins     *prometheus.CounterVec
	carried   *prometheus.CounterVec
	tainted   prometheus.Histogram
}

func newMetrics(r prometheus.Registerer, f *feed.Feed, b *board.Board) (*metrics, error) {
	counter := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	m := &metrics{
		results:   counter("trust_controller_results_total", "Events of AIAS, by whether their result was taken or refused.", "outcome"),
		writes:    counter("trust_controller_writes_total", "Writes to the API server, by resource.", "resource"),
		evictions: counter("trust_controller_evictions_total", "Pods of classes on nodes that do not meet them: evicted, refused (by a disruption budget), forced, or stuck.", "outcome"),
		joins:     counter("trust_controller_joins_total", "Certificate requests of kubelets, by decision.", "decision"),
		carried:   counter("trust_controller_carried_total", "Policies and tags carried to AIAS, by kind and outcome.", "outcome"),
		tainted: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "trust_controller_verdict_to_node_seconds",
			Help: "Time from a changed verdict of AIAS until the node object has its labels and taints.", Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}}),
	}
	for _, c := range []prometheus.Collector{m.results, m.writes, m.evictions, m.joins, m.carried, m.tainted, &gauges{f, b}} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) wrote(resource string)    { m.writes.WithLabelValues(resource).Inc() }
func (m *metrics) took(d time.Duration)     { m.tainted.Observe(d.Seconds()) }
func (m *metrics) evicted(outcome string)   { m.evictions.WithLabelValues(outcome).Inc() }
func (m *metrics) joined(decision string)   { m.joins.WithLabelValues(decision).Inc() }
func (m *metrics) carriedTo(outcome string) { m.carried.WithLabelValues(outcome).Inc() }
func (m *metrics) observed(outcome string)  { m.results.WithLabelValues(outcome).Inc() }

// gauges are read when they are asked for.
type gauges struct {
	feed  *feed.Feed
	board *board.Board
}

var (
	nodesDesc     = prometheus.NewDesc("trust_controller_nodes", "Node objects by trust.", []string{"trust"}, nil)
	classDesc     = prometheus.NewDesc("trust_controller_class_nodes", "Nodes that meet a TrustClass.", []string{"class"}, nil)
	expiryDesc    = prometheus.NewDesc("trust_controller_next_expiry_timestamp_seconds", "When the first trusted node falls unless it attests.", nil, nil)
	heldDesc      = prometheus.NewDesc("trust_controller_breaker_held", "1 while the breaker holds enforcement: a person must look.", nil, nil)
	heldNodesDesc = prometheus.NewDesc("trust_controller_breaker_held_nodes", "Nodes whose fall has no consequences for what runs there.", nil, nil)
	feedDesc      = prometheus.NewDesc("trust_controller_aias_connected", "1 while the stream of results of AIAS is open.", nil, nil)
)

// Describe lists what Collect gives.
func (g *gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{nodesDesc, classDesc, expiryDesc, heldDesc, heldNodesDesc, feedDesc} {
		ch <- d
	}
}

// Collect counts.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	trusted, all, classes, first := 0, g.board.All(), map[string]int{}, time.Time{}
	for i := range all {
		e := &all[i]
		for _, c := range e.Classes {
			classes[c]++
		}
		if !e.Verdict.Trusted {
			continue
		}
		trusted++
		if x := e.Verdict.Result.Expires; first.IsZero() || x.Before(first) {
			first = x
		}
	}
	gauge(nodesDesc, float64(trusted), "trusted")
	gauge(nodesDesc, float64(len(all)-trusted), "untrusted")
	for c, n := range classes {
		gauge(classDesc, float64(n), c)
	}
	if !first.IsZero() {
		gauge(expiryDesc, float64(first.Unix()))
	}
	o := g.board.Outcome()
	connected, _ := g.feed.Connected()
	gauge(heldDesc, one(o.Held))
	gauge(heldNodesDesc, float64(len(o.Nodes)))
	gauge(feedDesc, one(connected))
}

func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
