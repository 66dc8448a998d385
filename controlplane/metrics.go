package controlplane

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics of the control plane.
type metrics struct {
	documentsValid                     prometheus.Gauge
	documentsBad                       prometheus.Counter
	quarantined                        prometheus.Gauge
	streams                            prometheus.Gauge
	connections                        prometheus.Gauge
	connectionsRefused, connectionsCut prometheus.Counter
	nacks                              *prometheus.CounterVec
	pushes                             prometheus.Counter
	enrollments                        *prometheus.CounterVec
	keysRefused                        prometheus.Counter

	renewalsFailed   *prometheus.CounterVec
	rotations        *prometheus.CounterVec
	rotationForced   *prometheus.CounterVec
	rotationFailures *prometheus.CounterVec
	revoked          prometheus.Counter
	forks            prometheus.Counter
}

// newMetrics registers the metrics with r; nil is with nobody.
func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	return &metrics{
		documentsValid: f.NewGauge(prometheus.GaugeOpts{
			Name: "chancery_documents_valid",
			Help: "1 when the directory's documents are served, 0 when earlier ones are.",
		}),
		documentsBad: f.NewCounter(prometheus.CounterOpts{
			Name: "chancery_documents_rejected_total",
			Help: "Changes of the documents that were not valid.",
		}),
		quarantined: f.NewGauge(prometheus.GaugeOpts{
			Name: "chancery_quarantined_documents",
			Help: "Documents that a proxy rejected, and that are not served for it.",
		}),
		streams: f.NewGauge(prometheus.GaugeOpts{
			Name: "chancery_xds_streams",
			Help: "Open ADS streams of agents.",
		}),
		connections: f.NewGauge(prometheus.GaugeOpts{
			Name: "chancery_connections",
			Help: "Open connections of agents.",
		}),
		connectionsRefused: f.NewCounter(prometheus.CounterOpts{
			Name: "chancery_connections_refused_total",
			Help: "Connections whose handshake failed, or that were too many.",
		}),
		connectionsCut: f.NewCounter(prometheus.CounterOpts{
			Name: "chancery_connections_cut_total",
			Help: "Connections that were cut because their certificate was revoked.",
		}),
		nacks: f.NewCounterVec(prometheus.CounterOpts{
			Name: "chancery_nacks_total",
			Help: "Responses that agents, or their Envoys, rejected.",
		}, []string{"type_url", "by"}),
		pushes: f.NewCounter(prometheus.CounterOpts{
			Name: "chancery_endpoint_pushes_total",
			Help: "Times that changed endpoints were sent to proxies.",
		}),
		enrollments: f.NewCounterVec(prometheus.CounterOpts{
			Name: "chancery_certificates_signed_total",
			Help: "Certificates of workloads that were signed.",
		}, []string{"role"}),
		keysRefused: f.NewCounter(prometheus.CounterOpts{
			Name: "chancery_passport_keys_refused_total",
			Help: "Passport keys of gateways that were refused because too many are in use.",
		}),

		renewalsFailed: f.NewCounterVec(prometheus.CounterOpts{
			Name: "chancery_certificate_renewals_failed_total",
			Help: "Renewals of workloads' certificates that were refused or failed, by gRPC status.",
		}, []string{"code"}),
		rotations: f.NewCounterVec(prometheus.CounterOpts{
			Name: "chancery_rotation_steps_total",
			Help: "Steps of the authority's rotation that were taken.",
		}, []string{"step"}),
		rotationForced: f.NewCounterVec(prometheus.CounterOpts{
			Name: "chancery_rotation_steps_forced_total",
			Help: "Steps of the authority's rotation that were taken without some proxies.",
		}, []string{"step"}),
		rotationFailures: f.NewCounterVec(prometheus.CounterOpts{
			Name: "chancery_rotation_failures_total",
			Help: "Steps of the authority's rotation that failed.",
		}, []string{"step"}),
		revoked: f.NewCounter(prometheus.CounterOpts{
			Name: "chancery_certificates_revoked_total",
			Help: "Certificates that operators revoked.",
		}),
		forks: f.NewCounter(prometheus.CounterOpts{
			Name: "chancery_certificates_forked_total",
			Help: "Certificates that were renewed with two keys, one of them a thief's.",
		}),
	}
}
