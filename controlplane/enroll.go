package controlplane

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// Enroll implements the ControlPlane service. The certificate is for whoever
// holds the one that the connection was made with, whatever the request says.
func (s *Server) Enroll(ctx context.Context, req *chancerypb.EnrollRequest) (_ *chancerypb.EnrollResponse, err error) {
	defer func() {
		if err != nil {
			s.metrics.renewalsFailed.WithLabelValues(status.Code(err).String()).Inc()
		}
	}()
	who, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	if !s.renewals.allow(who.certificate.Lineage) || !s.enrollments.allow(who.ID) {
		return nil, errTooManyEnrollments
	}
	return s.issue(ctx, req, ca.Request{
		ID:      who.ID,
		Lineage: who.certificate.Lineage,
		Parent:  who.certificate.Serial,
	})
}

// errTooManyEnrollments is temporary.
var errTooManyEnrollments = status.Error(codes.ResourceExhausted, "too many enrollments: try again later")

// issue signs the certificate of a workload that has proved who it is, and
// endorses the Passport keys that come with it.
func (s *Server) issue(ctx context.Context, req *chancerypb.EnrollRequest, want ca.Request) (*chancerypb.EnrollResponse, error) {
	key, err := identity.PublicKey(req.GetCsr())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	keys := req.GetPassportKeys()
	if len(keys) > 0 && want.ID.Role != identity.RoleGateway {
		return nil, status.Error(codes.PermissionDenied, "only gateways sign Passports")
	}
	authority, leaf := s.authority()
	by := endorser{gateway: want.ID.Name, lineage: want.Lineage, until: time.Now().Add(leaf)}
	if err := s.passports.admits(by, keys...); err != nil {
		return nil, s.notEndorsed(want.ID, err)
	}
	want.Key, want.TTL = key, leaf
	chain, certificate, err := authority.Sign(want)
	if err != nil {
		return nil, s.notSigned(ctx, want.ID, err)
	}
	if other, forked := authority.Fork(certificate); forked {
		s.reportFork(ctx, certificate, other)
	}
	if len(keys) > 0 {
		if err := s.endorse(certificate, keys); err != nil {
			return nil, err
		}
	}
	s.metrics.enrollments.WithLabelValues(string(want.ID.Role)).Inc()
	s.log.InfoContext(ctx, "certificate signed", "workload", want.ID.String(),
		"serial", certificate.Serial, "lineage", certificate.Lineage, "expires", certificate.Expires)
	return &chancerypb.EnrollResponse{Chain: chain, SpiffeId: certificate.SPIFFEID, Trust: authority.Trust()}, nil
}

// notSigned says what an agent is told when its certificate is not signed.
func (s *Server) notSigned(ctx context.Context, id identity.ID, err error) error {
	s.log.ErrorContext(ctx, "certificate not signed", "workload", id.String(), "err", err)
	switch {
	case errors.Is(err, ca.ErrRevoked):
		return errAttest
	case errors.Is(err, ca.ErrTooMany):
		return errTooManyEnrollments
	}
	return status.Error(codes.Internal, "certificate not signed")
}

// reportFork is loud about a certificate that was renewed with two keys: one of
// them is a thief's, and nobody can tell which.
func (s *Server) reportFork(ctx context.Context, one, other ca.Certificate) {
	const hint = "its key was stolen: chancery revoke --serial with any of these revokes them all; then let the agent join anew"
	s.metrics.forks.Inc()
	s.log.ErrorContext(ctx, "certificate renewed with two keys", "workload", one.ID.String(), "certificate", one.Parent,
		"serial", one.Serial, "other", other.Serial, "lineage", one.Lineage, "hint", hint)
	from := ""
	if p, ok := peer.FromContext(ctx); ok {
		from = p.Addr.String()
	}
	s.audit.Record(audit.Event{
		Event: "certificate renewed with two keys", Subject: one.ID.String(), By: from, Outcome: audit.Done, Reason: hint,
		Details: map[string]string{"certificate": one.Parent, "serial": one.Serial, "other": other.Serial},
	})
}

// endorse takes a gateway's Passport keys for as long as its certificate.
func (s *Server) endorse(certificate ca.Certificate, jwks [][]byte) error {
	by := endorser{gateway: certificate.ID.Name, lineage: certificate.Lineage, until: certificate.Expires}
	if err := s.passports.endorse(by, jwks...); err != nil {
		return s.notEndorsed(certificate.ID, err)
	}
	return nil
}

// notEndorsed says what an agent is told when its Passport keys are not endorsed.
func (s *Server) notEndorsed(id identity.ID, err error) error {
	switch {
	case errors.Is(err, errPassportKeyTaken):
		return status.Error(codes.AlreadyExists, err.Error())
	case errors.Is(err, errPassportKey):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, errPassportKeys):
		s.metrics.keysRefused.Inc()
		s.log.Error("passport key refused", "workload", id.String(), "err", err)
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	s.log.Error("passport key not endorsed", "workload", id.String(), "err", err)
	return status.Error(codes.Internal, "passport key not endorsed")
}
