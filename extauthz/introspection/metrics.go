package introspection

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

type metrics struct{ total *prometheus.CounterVec }

// newMetrics registers the metrics with r; nil is with nobody.
func newMetrics(r prometheus.Registerer) metrics {
	return metrics{promauto.With(r).NewCounterVec(prometheus.CounterOpts{
		Name: "chancery_introspections_total",
		Help: "Tokens by what their provider said: active, inactive, each also as remembered; throttled, unavailable.",
	}, []string{"provider", "result"})}
}

func (m metrics) count(p *chancerypb.Provider, result string) {
	m.total.WithLabelValues(p.GetName(), result).Inc()
}
