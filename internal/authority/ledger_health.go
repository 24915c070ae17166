package authority

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"touchstone.dev/touchstone/internal/ledger"
)

// behindLong is for how long the tree of the ledger may lack entries before a person is told: it gets a batch ten times a second.
const behindLong = 10 * time.Second

// ledgerWarning says that the ledger lives on its journal; "" while it does not.
func ledgerWarning(h ledger.Health) string {
	if h.Waiting == 0 || h.Behind < behindLong && h.Err == nil {
		return ""
	}
	why := "it is slow"
	if h.Err != nil {
		why = h.Err.Error()
	}
	return fmt.Sprintf("warning: the tree of the ledger has not been written for %s: %s; %d entries wait in its journal, which is %.0f%% full. When it is full, no key is released: make room on the disk of the data folder, or see why it takes no writes",
		h.Behind.Round(time.Second), clip(why, 300), h.Waiting, 100*h.Used)
}

// ledgerHealth asks the ledger how it is when it is asked.
type ledgerHealth struct{ a *Authority }

var (
	ledgerWaitingDesc  = prometheus.NewDesc("aias_ledger_waiting_entries", "Entries of the ledger that are on disk in its journal, and not in its tree yet.", nil, nil)
	ledgerBehindDesc   = prometheus.NewDesc("aias_ledger_behind_seconds", "Seconds since the tree of the ledger took an entry last, while entries wait; 0 when none does.", nil, nil)
	ledgerUsedDesc     = prometheus.NewDesc("aias_ledger_journal_used_ratio", "How full the journal of the ledger is, 0 to 1. When it is full, what must be recorded waits: no key is released.", nil, nil)
	ledgerFailuresDesc = prometheus.NewDesc("aias_ledger_tree_failures_total", "Batches of entries that the tree of the ledger did not take; they wait in its journal, and are tried again.", nil, nil)
)

// Describe lists what Collect gives.
func (c ledgerHealth) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{ledgerWaitingDesc, ledgerBehindDesc, ledgerUsedDesc, ledgerFailuresDesc} {
		ch <- d
	}
}

// Collect asks.
func (c ledgerHealth) Collect(ch chan<- prometheus.Metric) {
	h := c.a.ledger.Health()
	ch <- prometheus.MustNewConstMetric(ledgerWaitingDesc, prometheus.GaugeValue, float64(h.Waiting))
	ch <- prometheus.MustNewConstMetric(ledgerBehindDesc, prometheus.GaugeValue, h.Behind.Seconds())
	ch <- prometheus.MustNewConstMetric(ledgerUsedDesc, prometheus.GaugeValue, h.Used)
	ch <- prometheus.MustNewConstMetric(ledgerFailuresDesc, prometheus.CounterValue, float64(h.Failures))
}
