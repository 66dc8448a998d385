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
	id := who.ID
	trim(report)
	if rejects(report) && !s.rejections.allow(id) {
		return nil, errTooManyRejections
	}
	proxy, before := s.proxies.note(id, who.certificate.Lineage, report)
	s.acknowledged(id, report.GetAcknowledgedRevision())
	for _, t := range report.GetTypes() {
		if isRejected(t) && isNews(before, report.GetHeldRevision(), t) {
			s.rejected(rejection{
				ID:       id,
				Instance: proxy.instance,
				By:       "envoy",
				Revision: report.GetHeldRevision(),
				TypeURL:  t.GetTypeUrl(),
				Names:    t.GetRejected(),
				Text:     t.GetError(),
			})
		}
	}
	return &chancerypb.ReportResponse{}, nil
}

// errTooManyRejections is temporary: a report is made again, and a stream opened.
var errTooManyRejections = status.Error(codes.ResourceExhausted, "too many rejections: try again later")

func rejects(report *chancerypb.ReportRequest) bool {
	return slices.ContainsFunc(report.GetTypes(), isRejected)
}

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
