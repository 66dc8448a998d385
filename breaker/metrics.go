package breaker

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of outgoing calls, by the name of the guard.
type metrics struct {
	state   *prometheus.GaugeVec
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

func newMetrics(r prometheus.Registerer) metrics {
	return metrics{
		state: register(r, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "chancery_outgoing_state",
			Help: "Circuit breaker of outgoing calls: 0 closed, 1 half-open, 2 open.",
		}, []string{"name"})),
		calls: register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chancery_outgoing_calls_total",
			Help: "Outgoing calls by result: ok, error, timeout, open (not made), abandoned.",
		}, []string{"name", "result"})),
		seconds: register(r, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "chancery_outgoing_duration_seconds",
			Help:    "Duration of outgoing calls that were made.",
			Buckets: []float64{.001, .005, .025, .1, .5, 1, 5, 30, 120, 330},
		}, []string{"name"})),
	}
}

// register returns the collector that r already has of that name, or c. It
// panics, as MustRegister does, when the two differ in kind.
func register[C prometheus.Collector](r prometheus.Registerer, c C) C {
	if r == nil {
		return c
	}
	err := r.Register(c)
	if have, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		return have.ExistingCollector.(C)
	}
	if err != nil {
		panic(err)
	}
	return c
}

func (m metrics) observe(name string, err error, took time.Duration) {
	result := "ok"
	switch {
	case errors.Is(err, ErrOpen):
		m.calls.WithLabelValues(name, "open").Inc()
		return
	case errors.Is(err, errAbandoned):
		result = "abandoned"
	case errors.Is(err, context.DeadlineExceeded):
		result = "timeout"
	case err != nil:
		result = "error"
	}
	m.calls.WithLabelValues(name, result).Inc()
	m.seconds.WithLabelValues(name).Observe(took.Seconds())
}
