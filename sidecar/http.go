package sidecar

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// Status describes an agent to people.
type Status struct {
	Identity string `json:"identity"`
	Instance string `json:"instance"`
	Version  string `json:"version"`
	SPIFFEID string `json:"spiffe_id,omitempty"`
	// CertificateExpires is when the certificate ends; nil without one.
	CertificateExpires *time.Time `json:"certificate_expires,omitempty"`
	// ControlPlaneConnected says that its stream is open.
	ControlPlaneConnected bool `json:"control_plane_connected"`
	EnvoyConnected        bool `json:"envoy_connected"`
	// EnvoyVersion is what Envoy said last.
	EnvoyVersion string `json:"envoy_version,omitempty"`
	// HeldRevision is the one that Envoy is to have, AcknowledgedRevision the
	// last that it took whole and lived with.
	HeldRevision         string       `json:"held_revision,omitempty"`
	AcknowledgedRevision string       `json:"acknowledged_revision,omitempty"`
	Types                []TypeStatus `json:"types,omitempty"`
	// NotReady says why the agent is not ready; empty when it is.
	NotReady string `json:"not_ready,omitempty"`
}

// TypeStatus tells how Envoy stands towards the resources of one type.
type TypeStatus struct {
	TypeURL string `json:"type_url"`
	// State is PENDING, ACKED or NACKED.
	State    string   `json:"state"`
	Error    string   `json:"error,omitempty"`
	Rejected []string `json:"rejected,omitempty"`
}

// Handler serves /healthz, /readyz, /status, and /metrics when the registerer
// gathers too. It tells of the mesh's inner life: for loopback only.
func (a *Agent) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := a.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a.Status()) // the client went away
	})
	if g, ok := a.config.Registerer.(prometheus.Gatherer); ok {
		mux.Handle("GET /metrics", promhttp.HandlerFor(g, promhttp.HandlerOpts{}))
	}
	return mux
}

// Ready reports what keeps the agent's Envoy from serving, or nil. It is not
// an error that the control plane is away.
func (a *Agent) Ready() error {
	var missing []error
	switch s := a.credentials.current.Load(); {
	case s == nil:
		missing = append(missing, errors.New("no certificate yet"))
	case time.Now().After(s.Expires()):
		missing = append(missing, errors.New("certificate expired"))
	}
	if a.config.Identity.Role == identity.RoleGateway && a.credentials.passports.signer() == nil {
		missing = append(missing, errors.New("passport key not endorsed yet"))
	}
	if !a.pdp.ready() {
		missing = append(missing, errors.New("no policy yet"))
	}
	if _, ok := a.book.connected(); !ok {
		missing = append(missing, errors.New("envoy not connected"))
	}
	if !a.rollout.ready() {
		missing = append(missing, errors.New("no revision acknowledged by envoy yet"))
	}
	return errors.Join(append(missing, a.certificates.ready())...)
}

// Status returns the agent's present state.
func (a *Agent) Status() Status {
	report := a.describe()
	s := Status{
		Identity:              a.config.Identity.String(),
		Instance:              report.GetInstance(),
		Version:               report.GetAgentVersion(),
		ControlPlaneConnected: a.controlPlane.Load(),
		EnvoyConnected:        report.GetEnvoyConnected(),
		EnvoyVersion:          report.GetEnvoyVersion(),
		HeldRevision:          report.GetHeldRevision(),
		AcknowledgedRevision:  report.GetAcknowledgedRevision(),
	}
	if c := a.credentials.current.Load(); c != nil {
		expires := c.Expires()
		s.SPIFFEID, s.CertificateExpires = c.SPIFFEID(), &expires
	}
	for _, t := range report.GetTypes() {
		s.Types = append(s.Types, TypeStatus{
			TypeURL: t.GetTypeUrl(), State: t.GetState().String(), Error: t.GetError(), Rejected: t.GetRejected(),
		})
	}
	if err := a.Ready(); err != nil {
		s.NotReady = err.Error()
	}
	return s
}

// describe returns what the control plane is told.
func (a *Agent) describe() *chancerypb.ReportRequest {
	report := a.rollout.report()
	report.Instance = a.config.Instance
	report.AgentVersion = a.config.Version
	report.Problems = a.problems.list()
	report.Now = timestamppb.Now()
	report.TrustSequence = a.usedTrust()
	report.RevocationsSequence = a.revocations.sequence()
	if s := a.usedCertificate(); s != nil {
		report.SvidSerial, report.SvidAuthority = s.Serial(), s.Authority()
		report.SvidExpires, report.SvidRenews = timestamppb.New(s.Expires()), timestamppb.New(s.renews)
	}
	return report
}
