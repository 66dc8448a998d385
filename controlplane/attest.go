package controlplane

import (
	"context"
	"crypto"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/attest"
	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// What those are told who do not prove who they are. Whoever has proved nothing
// does not learn whether a document speaks of a workload.
var (
	errTooManyAttempts = status.Error(codes.ResourceExhausted, "too many attempts: try again later")
	errNotByConsul     = status.Error(codes.Unimplemented, "this control plane does not attest by Consul: use a join token")
)

// JoinWithToken implements the Attestation service.
func (s *Server) JoinWithToken(ctx context.Context, req *chancerypb.JoinWithTokenRequest) (*chancerypb.EnrollResponse, error) {
	from, key, err := s.attempt(ctx, req.GetEnroll().GetCsr())
	if err != nil {
		return nil, err
	}
	id, err := identity.ParseWorkload(req.GetWorkload())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	lineage, err := s.tokens.Redeem(req.GetToken(), id, key, from)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	return s.join(ctx, ca.Request{ID: id, Lineage: lineage}, from, req.GetEnroll())
}

// ChallengeConsul implements the Attestation service.
func (s *Server) ChallengeConsul(ctx context.Context, req *chancerypb.ChallengeConsulRequest) (*chancerypb.ChallengeConsulResponse, error) {
	_, key, err := s.attempt(ctx, req.GetCsr())
	if err != nil {
		return nil, err
	}
	if s.consul == nil {
		return nil, errNotByConsul
	}
	nonce, lifetime, err := s.consul.Challenge(req.GetService(), req.GetServiceId(), key)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return &chancerypb.ChallengeConsulResponse{Nonce: nonce, MetaKey: attest.MetaKey, Lifetime: durationpb.New(lifetime)}, nil
}

// JoinWithConsul implements the Attestation service.
func (s *Server) JoinWithConsul(ctx context.Context, req *chancerypb.JoinWithConsulRequest) (*chancerypb.EnrollResponse, error) {
	from, key, err := s.attempt(ctx, req.GetEnroll().GetCsr())
	if err != nil {
		return nil, err
	}
	if s.consul == nil {
		return nil, errNotByConsul
	}
	proof := attest.Proof{Service: req.GetService(), ServiceID: req.GetServiceId(), Nonce: req.GetNonce()}
	if err := s.consul.Verify(ctx, proof, key, from); err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	return s.join(ctx, ca.Request{ID: serviceID(req.GetService())}, from, req.GetEnroll())
}

// attempt admits an attempt to join, and returns where it comes from and the
// key that it is for.
func (s *Server) attempt(ctx context.Context, csr []byte) (from string, key crypto.PublicKey, err error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", nil, errStranger
	}
	if !s.attempts.allow(addressOf(p.Addr)) || !s.allAttempts.Allow() {
		return "", nil, errTooManyAttempts
	}
	if key, err = identity.PublicKey(csr); err != nil {
		return "", nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return p.Addr.String(), key, nil
}

// join gives a workload that has proved who it is its first certificate.
func (s *Server) join(ctx context.Context, want ca.Request, from string, req *chancerypb.EnrollRequest) (resp *chancerypb.EnrollResponse, err error) {
	defer func() { s.record("certificate issued at attestation", want.ID.String(), from, "", err) }()
	switch {
	case !s.views.has(want.ID):
		return nil, statusOf(errRemoved)
	case !s.enrollments.allow(want.ID):
		return nil, errTooManyEnrollments
	}
	return s.issue(ctx, req, want)
}
