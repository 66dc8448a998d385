package controlplane

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chancery-mesh/chancery/identity/ca"
)

// identityMetrics tell of certificates and authorities as they are when they are
// asked for, so that what has gone leaves no trace.
type identityMetrics struct{ server *Server }

var _ prometheus.Collector = identityMetrics{}

var (
	authoritiesDesc = prometheus.NewDesc("chancery_authorities",
		"Issuing authorities by state.", []string{"state"}, nil)
	authorityExpiresDesc = prometheus.NewDesc("chancery_authority_expiry_timestamp_seconds",
		"When the active authority ends.", nil, nil)
	trustDesc = prometheus.NewDesc("chancery_trust_sequence",
		"Sequence of the newest trust.", nil, nil)
	expiresDesc = prometheus.NewDesc("chancery_certificate_earliest_expiry_timestamp_seconds",
		"When the first certificate of a workload ends, of the newest of each agent.", []string{"workload"}, nil)
	issuedDesc = prometheus.NewDesc("chancery_certificate_earliest_issue_timestamp_seconds",
		"When the oldest certificate of a workload was issued, of the newest of each agent.", []string{"workload"}, nil)
	revokedDesc = prometheus.NewDesc("chancery_certificates_revoked",
		"Certificates that are revoked and have not ended.", nil, nil)
	revocationsDesc = prometheus.NewDesc("chancery_credential_revocations",
		"Revocations of users' and clients' credentials that have not ended.", nil, nil)
	revocationsSequenceDesc = prometheus.NewDesc("chancery_revocations_sequence",
		"Sequence of the newest revocations of credentials.", nil, nil)
	overdueDesc = prometheus.NewDesc("chancery_certificates_overdue",
		"Proxies whose certificate should have been renewed long since.", nil, nil)
	clockJumpDesc = prometheus.NewDesc("chancery_clock_jump_seconds",
		"How far the control plane's clock is from where it should be; nothing is forgotten until this is 0.", nil, nil)
	clockDesc = prometheus.NewDesc("chancery_clock_difference_max_seconds",
		"Largest difference between the clock of a connected agent and this one.", nil, nil)
)

// Describe implements prometheus.Collector.
func (identityMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		authoritiesDesc, authorityExpiresDesc, trustDesc, expiresDesc, issuedDesc, revokedDesc, overdueDesc, clockDesc, clockJumpDesc,
		revocationsDesc, revocationsSequenceDesc,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m identityMetrics) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	overdue, clock := m.server.proxies.worst(time.Now())
	gauge(overdueDesc, float64(overdue))
	gauge(clockDesc, clock.Seconds())
	sequence, _ := m.server.revocations.newest()
	gauge(revocationsSequenceDesc, float64(sequence))
	gauge(revocationsDesc, float64(m.server.revocations.count()))
	authority, err := m.server.certificateAuthority()
	if err != nil {
		return
	}
	gauge(clockJumpDesc, authority.ClockJump().Seconds())
	trust := authority.Trust()
	gauge(trustDesc, float64(trust.GetSequence()))
	gauge(revokedDesc, float64(len(trust.GetRevoked())))
	states := map[ca.State]int{ca.Prepared: 0, ca.Active: 0, ca.Old: 0, ca.Tainted: 0, ca.Revoked: 0}
	for _, a := range authority.Authorities() {
		states[a.State]++
		if a.State == ca.Active {
			gauge(authorityExpiresDesc, seconds(a.NotAfter))
		}
	}
	for state, n := range states {
		gauge(authoritiesDesc, float64(n), string(state))
	}
	for workload, c := range earliest(authority.Live()) {
		gauge(expiresDesc, seconds(c.Expires), workload)
		gauge(issuedDesc, seconds(c.Issued), workload)
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// earliest returns for each workload when the first of its certificates ends,
// and when the oldest was issued.
func earliest(live []ca.Certificate) map[string]ca.Certificate {
	of := map[string]ca.Certificate{}
	for _, c := range live {
		e, ok := of[c.ID.String()]
		if !ok {
			e = c
		}
		if c.Expires.Before(e.Expires) {
			e.Expires = c.Expires
		}
		if c.Issued.Before(e.Issued) {
			e.Issued = c.Issued
		}
		of[c.ID.String()] = e
	}
	return of
}

// worst returns how many connected proxies are late to renew, and the largest
// difference between clocks.
func (ps *proxies) worst(now time.Time) (overdue int, clock time.Duration) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, instances := range ps.byID {
		for _, p := range instances {
			if p.streams == 0 {
				continue
			}
			if c := certificateStatus(p.report); c != nil && c.overdue(now) {
				overdue++
			}
			clock = max(clock, p.clockAhead().Abs())
		}
	}
	return overdue, clock
}
