package extauthz

import (
	"errors"
	"time"

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
func (m *metrics) observe(d *decision, took time.Duration) {
	outcome := "deny"
	if d.verdict == allowed {
		outcome = "allow"
	}
	m.checks.WithLabelValues(d.policy, d.route, outcome, d.reason).Inc()
	m.duration.Observe(took.Seconds())
}
