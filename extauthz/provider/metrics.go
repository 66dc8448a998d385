package provider

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics by the name of the provider.
type metrics struct {
	fetched, usable *prometheus.GaugeVec
	failures        *prometheus.CounterVec
}

// newMetrics registers the metrics with r; nil is with nobody.
func newMetrics(r prometheus.Registerer) metrics {
	f := promauto.With(r)
	return metrics{
		fetched: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "chancery_provider_keys_fetched_timestamp_seconds",
			Help: "When the keys of an identity provider were last fetched.",
		}, []string{"provider"}),
		usable: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "chancery_provider_keys_usable_until_timestamp_seconds",
			Help: "Until when the keys of an identity provider are used if they cannot be fetched again.",
		}, []string{"provider"}),
		failures: f.NewCounterVec(prometheus.CounterOpts{
			Name: "chancery_provider_keys_failures_total",
			Help: "Fetches of an identity provider's keys that failed.",
		}, []string{"provider"}),
	}
}

func (m metrics) forget(name string) {
	m.fetched.DeleteLabelValues(name)
	m.usable.DeleteLabelValues(name)
	m.failures.DeleteLabelValues(name)
}
