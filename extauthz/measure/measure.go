// Package measure counts checks and their time, by the same names whatever decides
// them: a process has one that does.
package measure

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Checks are the metrics chancery_checks_total and chancery_check_duration_seconds,
// safe for concurrent use.
type Checks struct {
	decided  *prometheus.CounterVec
	duration prometheus.Histogram
}

// NewChecks registers the metrics with r; nil is with nobody.
func NewChecks(r prometheus.Registerer) (*Checks, error) {
	c := &Checks{
		decided: prometheus.NewCounterVec(prometheus.CounterOpts{
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
		return c, nil
	}
	return c, errors.Join(r.Register(c.decided), r.Register(c.duration))
}

// Check is one that is decided. Its texts come from documents and constants: none
// is of a client's choice.
type Check struct {
	Policy, Route, Reason string
	Allowed               bool
	Took                  time.Duration
}

// Observe counts a check.
func (c *Checks) Observe(check Check) {
	decision := "deny"
	if check.Allowed {
		decision = "allow"
	}
	c.decided.WithLabelValues(check.Policy, check.Route, decision, check.Reason).Inc()
	c.duration.Observe(check.Took.Seconds())
}
