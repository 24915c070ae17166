package authority

import (
	"context"
	"path/filepath"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"touchstone.dev/touchstone/internal/audit/export"
)

// exportFolder is where the cursors of destinations are in the data folder.
const exportFolder = "export"

// wake tells the destinations of news.
func (u *auditor) wake(node string) {
	for _, x := range u.destinations() {
		x.Wake(node)
	}
}

func (u *auditor) destinations() []*export.Exporter {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.exporters
}

// exportLoop sends audit events to other systems. Only the service does: a command beside it would send the same.
func (a *Authority) exportLoop(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, c := range a.cfg.Audit.Export {
		x, err := export.Open(c, a.audit.archive, filepath.Join(a.cfg.Data, exportFolder), a.log)
		if err != nil {
			a.log.Error("audit events are not exported", "destination", c.Name, "err", err)
			continue
		}
		a.audit.mu.Lock()
		a.audit.exporters = append(a.audit.exporters[:len(a.audit.exporters):len(a.audit.exporters)], x) // who reads has the one before
		a.audit.mu.Unlock()
		wg.Go(func() { x.Run(ctx) })
	}
}

// exports tells of the destinations of audit events when it is asked.
type exports struct{ a *Authority }

var (
	sentDesc    = prometheus.NewDesc("aias_audit_export_entries_total", "Audit entries that were sent to a destination, those that were sent again with them.", []string{"destination"}, nil)
	failedDesc  = prometheus.NewDesc("aias_audit_export_failures_total", "Times that a destination could not be sent to.", []string{"destination"}, nil)
	missingDesc = prometheus.NewDesc("aias_audit_export_missing_total", "Audit entries that the archive had no more when they could be sent.", []string{"destination"}, nil)
	refusedDesc = prometheus.NewDesc("aias_audit_export_refused_total", "Audit entries that a destination refused for good.", []string{"destination"}, nil)
	behindDesc  = prometheus.NewDesc("aias_audit_export_behind", "Audit entries that a destination does not have for sure yet.", []string{"destination"}, nil)
)

// Describe lists what Collect gives.
func (exports) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{sentDesc, failedDesc, missingDesc, refusedDesc, behindDesc} {
		ch <- d
	}
}

// Collect counts.
func (e exports) Collect(ch chan<- prometheus.Metric) {
	if e.a.audit == nil {
		return
	}
	for _, x := range e.a.audit.destinations() {
		s := x.Stats()
		for d, v := range map[*prometheus.Desc]uint64{sentDesc: s.Sent, failedDesc: s.Failures, missingDesc: s.Missing, refusedDesc: s.Refused} {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), x.Name())
		}
		ch <- prometheus.MustNewConstMetric(behindDesc, prometheus.GaugeValue, float64(s.Behind), x.Name())
	}
}
