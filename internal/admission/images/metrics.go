package images

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// unanswered is why a registry gave no answer: it is away, or we do not go where it is.
type unanswered struct{ error }

func (e unanswered) Unwrap() error { return e.error }

// newSeconds is how long registries take, by what came of it. Answers that were kept are not among them.
func newSeconds() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "trust_controller_image_check_seconds",
		Help:    "Time to ask a registry about an image, by outcome: passed, refused (not signed or encrypted as wanted), unanswered.",
		Buckets: []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10}}, []string{"outcome"})
}

// Metrics tells how checks went.
func (c *Checker) Metrics() prometheus.Collector { return c.seconds }

// observe counts a check.
func (c *Checker) observe(took time.Duration, err error) {
	outcome := "passed"
	if err != nil {
		outcome = "refused"
		var silent unanswered
		var status statusError
		if errors.As(err, &silent) || errors.As(err, &status) {
			outcome = "unanswered"
		}
	}
	c.seconds.WithLabelValues(outcome).Observe(took.Seconds())
}
