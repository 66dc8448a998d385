package audit

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// decisionMetrics are those of a [DecisionLog].
type decisionMetrics struct {
	logged, dropped prometheus.Counter
	duration        prometheus.Histogram
	failing, queued prometheus.Collector
}

func newDecisionMetrics(l *DecisionLog) *decisionMetrics {
	return &decisionMetrics{
		logged: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "chancery_decisions_logged_total",
			Help: "Decisions that were written to the decision log.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "chancery_decisions_dropped_total",
			Help: "Decisions that are missing in the decision log.",
		}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "chancery_decision_log_write_seconds",
			Help:    "Time to write decisions, several at once, and to disk where that is required.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
		}),
		failing: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "chancery_decision_log_failing",
			Help: "1 while the decision log cannot be written.",
		}, func() float64 { return map[bool]float64{true: 1}[l.failing.Load() || l.isStuck()] }),
		queued: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "chancery_decision_log_queued",
			Help: "Decisions that wait to be written.",
		}, func() float64 { return float64(l.queue.len()) }),
	}
}

// register registers them with r, which may be nil.
func (m *decisionMetrics) register(r prometheus.Registerer) (err error) {
	if r == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{m.logged, m.dropped, m.duration, m.failing, m.queued} {
		err = errors.Join(err, r.Register(c))
	}
	return err
}
