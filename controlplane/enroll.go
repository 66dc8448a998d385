package controlplane

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// caller returns who calls, if a document speaks of it.
func (s *Server) caller(ctx context.Context) (identity.ID, error) {
	peer, ok := identity.PeerFromContext(ctx)
	if !ok {
		return identity.ID{}, status.Error(codes.Unauthenticated, "who calls is not known")
	}
	if !s.views.has(peer.ID) {
		return identity.ID{}, statusOf(errRemoved)
	}
	return peer.ID, nil
}

// Enroll implements the ControlPlane service. The certificate is for the
// authenticated peer, whatever the request says.
func (s *Server) Enroll(ctx context.Context, req *chancerypb.EnrollRequest) (*chancerypb.EnrollResponse, error) {
	id, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	if !s.enrollments.allow(id) {
		return nil, status.Error(codes.ResourceExhausted, "too many enrollments: try again later")
	}
	pub, err := identity.PublicKey(req.GetCsr())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if len(req.GetPassportKey()) > 0 {
		if err := s.endorse(id, req.GetPassportKey()); err != nil {
			return nil, err
		}
	}
	ca := s.authority()
	der, err := ca.Sign(pub, id, s.cfg.CertificateTTL)
	if err != nil {
		s.log.ErrorContext(ctx, "certificate not signed", "workload", id.String(), "err", err)
		return nil, status.Error(codes.Internal, "certificate not signed")
	}
	s.metrics.enrollments.WithLabelValues(string(id.Role)).Inc()
	s.log.InfoContext(ctx, "certificate signed", "workload", id.String())
	return &chancerypb.EnrollResponse{
		Chain:    [][]byte{der},
		Bundle:   ca.Bundle(),
		SpiffeId: id.SPIFFE(ca.TrustDomain()),
	}, nil
}

// endorse takes a gateway's Passport key; nobody else's.
func (s *Server) endorse(id identity.ID, jwk []byte) error {
	if id.Role != identity.RoleGateway {
		return status.Error(codes.PermissionDenied, "only gateways sign Passports")
	}
	err := s.passports.endorse(id.Name, jwk)
	switch {
	case errors.Is(err, errPassportKey):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, errPassportKeys):
		s.metrics.keysRefused.Inc()
		s.log.Error("passport key refused", "workload", id.String(), "err", err)
		return status.Error(codes.ResourceExhausted, err.Error())
	case err != nil:
		s.log.Error("passport key not endorsed", "workload", id.String(), "err", err)
		return status.Error(codes.Internal, "passport key not endorsed")
	}
	return nil
}
