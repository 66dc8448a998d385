package extauthz

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	checks   *prometheus.CounterVec
	duration prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		checks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chancery_checks_total",
			Help: "Authorization checks, by the policy and route that decided, and why.",
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

// observe counts a decision. All labels come from documents and constants: none
// is of a client's choice.
func (m *metrics) observe(r *Record) {
	outcome := "deny"
	if r.Allowed() {
		outcome = "allow"
	}
	m.checks.WithLabelValues(r.Policy, r.Route, outcome, r.Reason).Inc()
	m.duration.Observe(r.Took.Seconds())
}
