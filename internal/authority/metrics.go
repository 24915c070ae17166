package authority

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"touchstone.dev/touchstone/internal/protocol"
)

// metrics are what /metrics shows.
type metrics struct {
	registry     *prometheus.Registry
	attestations *prometheus.CounterVec
	refusals     *prometheus.CounterVec
	changes      *prometheus.CounterVec
	imageKeys    *prometheus.CounterVec
	disks        *prometheus.CounterVec
	enrolments   prometheus.Counter
	panics       prometheus.Counter
	ledger       prometheus.Counter
	waiting      prometheus.Gauge
	appraisal    prometheus.Histogram
	requests     *prometheus.HistogramVec
	database     prometheus.Histogram
}

func newMetrics(a *Authority) *metrics {
	buckets := []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		attestations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "aias_attestations_total", Help: "Attestations that were judged, by what the node is afterwards."}, []string{"trust"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "aias_refusals_total", Help: "Requests that were refused, by the type of the problem."}, []string{"problem"}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "aias_verdict_changes_total", Help: "Changes of verdicts, by cause and by what the node is afterwards."}, []string{"cause", "trust"}),
		imageKeys: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "aias_image_keys_total", Help: "Requests of nodes for image keys, by outcome."}, []string{"outcome"}),
		disks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "aias_disk_recoveries_total", Help: "Recoveries of disk keys that were asked for, by whether they were released."}, []string{"answer"}),
		enrolments: prometheus.NewCounter(prometheus.CounterOpts{Name: "aias_enrolments_total", Help: "Finished enrolments."}),
		panics:     prometheus.NewCounter(prometheus.CounterOpts{Name: "aias_panics_total", Help: "Requests that ended in a panic: each is a bug."}),
		ledger:     prometheus.NewCounter(prometheus.CounterOpts{Name: "aias_ledger_failures_total", Help: "Writes to the ledger that failed: no key is released meanwhile."}),
		waiting:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "aias_appraisals_waiting", Help: "Appraisals that wait for a processor."}),
		appraisal: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "aias_appraisal_seconds", Help: "Time of one appraisal.", Buckets: buckets}),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "aias_request_seconds", Help: "Time of one request.", Buckets: buckets}, []string{"path"}),
		database: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "aias_database_write_seconds", Help: "Time from handing over a write until it is on disk.", Buckets: buckets}),
	}
	m.registry.MustRegister(m.attestations, m.refusals, m.changes, m.disks, m.imageKeys, m.enrolments, m.panics, m.ledger, m.waiting, m.appraisal, m.requests, m.database,
		nodesByTrust{a}, exports{a}, ledgerHealth{a}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// ObserveWrite records how long one write to the database took; store.Open takes it.
func (a *Authority) ObserveWrite(d time.Duration) { a.metrics.database.Observe(d.Seconds()) }

// nodesByTrust counts the nodes when it is asked.
type nodesByTrust struct{ a *Authority }

var (
	nodesDesc   = prometheus.NewDesc("aias_nodes", "Enrolled nodes by trust.", []string{"trust"}, nil)
	pendingDesc = prometheus.NewDesc("aias_nodes_pending", "Nodes that are still to be judged under the policy and references in force.", nil, nil)
	nextDesc    = prometheus.NewDesc("aias_next_expiry_seconds", "Seconds until the next trusted node expires if it stays silent.", nil, nil)
)

// Describe lists what Collect gives.
func (c nodesByTrust) Describe(ch chan<- *prometheus.Desc) {
	ch <- nodesDesc
	ch <- pendingDesc
	ch <- nextDesc
}

// Collect counts.
func (c nodesByTrust) Collect(ch chan<- prometheus.Metric) {
	count := map[string]int{protocol.Trusted: 0, protocol.Untrusted: 0, protocol.Unknown: 0}
	now := c.a.now()
	for _, n := range c.a.all() {
		n.mu.RLock()
		trust := n.trust
		if trust == protocol.Trusted && over(n.expires, now) {
			trust = protocol.Untrusted
		}
		n.mu.RUnlock()
		count[trust]++
	}
	for trust, n := range count {
		ch <- prometheus.MustNewConstMetric(nodesDesc, prometheus.GaugeValue, float64(n), trust)
	}
	if s := c.a.snapshot.Load(); s != nil {
		ch <- prometheus.MustNewConstMetric(pendingDesc, prometheus.GaugeValue, float64(len(c.a.outdated(s))))
	}
	if next := c.a.expiry.next(); !next.IsZero() {
		ch <- prometheus.MustNewConstMetric(nextDesc, prometheus.GaugeValue, next.Sub(c.a.now()).Seconds())
	}
}
