package opaenvoy

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	checks   *prometheus.CounterVec
	duration prometheus.Histogram
}

// newMetrics makes the metrics of package extauthz: a process has one of the two.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		checks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chancery_checks_total",
			Help: "Authorization checks, by what decided, and why.",
		}, []string{"policy", "route", "decision", "reason"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "chancery_check_duration_seconds",
			Help:    "Time that authorization checks took.",
			Buckets: prometheus.ExponentialBuckets(25e-6, 2, 14),
		}),
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(r.Register(m.checks), r.Register(m.duration))
}

func (m *metrics) observe(c *check, took time.Duration) {
	outcome := "deny"
	if c.allowed() {
		outcome = "allow"
	}
	m.checks.WithLabelValues("rego", "", outcome, c.reason).Inc()
	m.duration.Observe(took.Seconds())
}
