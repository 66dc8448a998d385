package sidecar

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the agent's own; those of decisions are extauthz's.
type metrics struct {
	nacks        *prometheus.CounterVec
	starts       prometheus.Counter
	expiry       prometheus.Gauge
	obtained     prometheus.Gauge
	left         prometheus.GaugeFunc
	enrollments  *prometheus.CounterVec
	trust        prometheus.Gauge
	revocations  prometheus.Gauge
	contact      prometheus.Gauge
	controlPlane prometheus.Gauge
	envoy        prometheus.GaugeFunc
	// expires is when the certificate ends, in milliseconds since 1970.
	expires atomic.Int64
	// others are those of parts that keep their own.
	others []prometheus.Collector
}

func newMetrics(envoyConnected func() bool) *metrics {
	m := &metrics{
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
		obtained: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "chancery_svid_obtained_timestamp_seconds",
			Help: "When the workload's certificate came; 0 while there is none.",
		}),
		enrollments: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chancery_svid_enrollments_total",
			Help: "Attempts at a certificate, by method (renew or join) and outcome (ok, failed).",
		}, []string{"method", "outcome"}),
		trust: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "chancery_trust_sequence",
			Help: "Sequence of the trust bundle that the agent holds; 0 while there is none.",
		}),
		revocations: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "chancery_revocations_sequence",
			Help: "Sequence of the revocations of credentials that are in force; 0 for none.",
		}),
		contact: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "chancery_control_plane_contact_timestamp_seconds",
			Help: "When the control plane, asked then, had nothing newer than what is in force; 0 for never.",
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
	m.left = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "chancery_svid_left_seconds",
		Help: "How long the workload's certificate is still good; negative once it has ended, 0 while there is none.",
	}, m.secondsLeft)
	return m
}

// certificate tells of the certificate in use.
func (m *metrics) certificate(s *certificate) {
	m.expires.Store(s.Expires().UnixMilli())
	m.expiry.Set(float64(s.Expires().Unix()))
	m.obtained.Set(float64(s.obtained.Unix()))
}

func (m *metrics) secondsLeft() float64 {
	expires := m.expires.Load()
	if expires == 0 {
		return 0
	}
	return time.Until(time.UnixMilli(expires)).Seconds()
}

// enrolled counts an attempt at a certificate.
func (m *metrics) enrolled(method string, err error) {
	outcome := "ok"
	if err != nil {
		outcome = "failed"
	}
	m.enrollments.WithLabelValues(method, outcome).Inc()
}

// register registers everything; a nil registerer takes nothing.
func (m *metrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	for _, c := range append(m.others,
		m.nacks, m.starts, m.expiry, m.obtained, m.left, m.enrollments, m.trust, m.revocations, m.contact, m.controlPlane, m.envoy) {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}
