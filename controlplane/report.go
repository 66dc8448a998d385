package controlplane

import (
	"context"
	"slices"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// envoyTypes are those that Envoy answers for, by its agent's report; the agent
// answers for all others itself, on its stream.
var envoyTypes = []string{resource.ClusterType, resource.RouteType, resource.ListenerType, resource.EndpointType}

// Report implements the ControlPlane service.
func (s *Server) Report(ctx context.Context, report *chancerypb.ReportRequest) (*chancerypb.ReportResponse, error) {
	who, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	if !who.connection.reports.Allow() {
		return nil, errTooManyReports
	}
	trim(report)
	// Nobody has what is yet to come.
	authority, _ := s.authority()
	trust := authority.Trust().GetSequence()
	revocations, _ := s.revocations.newest()
	report.TrustSequence = min(report.GetTrustSequence(), trust)
	report.RevocationsSequence = min(report.GetRevocationsSequence(), revocations)
	proxy, before := s.proxies.note(who, report)
	s.acknowledged(who.ID, report.GetAcknowledgedRevision())
	if err := s.takeRejections(proxy, before, report); err != nil {
		return nil, err
	}
	return &chancerypb.ReportResponse{TrustSequence: trust, RevocationsSequence: revocations}, nil
}

// takeRejections takes what is news of a report's NACKs. Those that are too many
// it drops, until they are told again; the rest of the report has been taken.
func (s *Server) takeRejections(p *proxy, before, report *chancerypb.ReportRequest) (err error) {
	for _, t := range report.GetTypes() {
		if !isRejected(t) || !isNews(before, report.GetHeldRevision(), t) && !s.proxies.isUnheard(p, t.GetTypeUrl()) {
			continue
		}
		heard := s.rejections.allow(p.id)
		s.proxies.setUnheard(p, t.GetTypeUrl(), !heard)
		if !heard {
			err = errTooManyRejections
			continue
		}
		s.rejected(rejection{
			ID:       p.id,
			Instance: p.instance,
			By:       "envoy",
			Revision: report.GetHeldRevision(),
			TypeURL:  t.GetTypeUrl(),
			Names:    t.GetRejected(),
			Text:     t.GetError(),
		})
	}
	return err
}

// errTooManyReports is temporary.
var errTooManyReports = status.Error(codes.ResourceExhausted, "too many reports: try again later")

// errTooManyRejections is temporary: a report is made again, and a stream opened.
var errTooManyRejections = status.Error(codes.ResourceExhausted, "too many rejections: try again later")

// isRejected reports whether Envoy rejected something that it is sent at all.
func isRejected(t *chancerypb.TypeStatus) bool {
	return t.GetState() == chancerypb.TypeStatus_NACKED && slices.Contains(envoyTypes, t.GetTypeUrl())
}

// isNews reports whether a NACK is not one that was told before.
func isNews(before *chancerypb.ReportRequest, revision string, t *chancerypb.TypeStatus) bool {
	if before.GetHeldRevision() != revision {
		return true
	}
	for _, old := range before.GetTypes() {
		if old.GetTypeUrl() == t.GetTypeUrl() {
			return old.GetState() != t.GetState() || old.GetError() != t.GetError()
		}
	}
	return true
}
