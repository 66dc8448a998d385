package sidecar

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the agent's own; those of decisions are extauthz's.
type metrics struct {
	nacks        *prometheus.CounterVec
	starts       prometheus.Counter
	expiry       prometheus.Gauge
	controlPlane prometheus.Gauge
	envoy        prometheus.GaugeFunc
	// others are those of parts that keep their own.
	others []prometheus.Collector
}

func newMetrics(envoyConnected func() bool) *metrics {
	return &metrics{
		nacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chancery_envoy_nacks_total",
			Help: "Responses that Envoy rejected, by type of resource.",
		}, []string{"type_url"}),
		starts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "chancery_envoy_starts_total",
			Help: "How often the agent started Envoy.",
		}),
		expiry: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "chancery_svid_expiry_timestamp_seconds",
			Help: "When the workload's certificate expires; 0 while there is none.",
		}),
		controlPlane: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "chancery_control_plane_connected",
			Help: "Whether the control plane's stream is open.",
		}),
		envoy: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "chancery_envoy_connected",
			Help: "Whether Envoy's stream is open.",
		}, func() float64 {
			if envoyConnected() {
				return 1
			}
			return 0
		}),
	}
}

// register registers everything; a nil registerer takes nothing.
func (m *metrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	for _, c := range append(m.others, m.nacks, m.starts, m.expiry, m.controlPlane, m.envoy) {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}
