package controlplane

import (
	"context"
	"crypto/x509"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// What those are told whose identity does not stand.
var (
	errStranger = status.Error(codes.Unauthenticated, "this needs a certificate: attest first")
	errAttest   = status.Error(codes.Unauthenticated, "the certificate has ended, was revoked, or is not known here: attest again")
)

// caller is the workload at the other end of a call.
type caller struct {
	identity.ID
	connection *connection
	// certificate is what the ledger knows of the one that it showed.
	certificate ca.Certificate
}

// caller returns who calls, if a document speaks of it.
func (s *Server) caller(ctx context.Context) (caller, error) {
	who, err := s.identify(ctx)
	if err == nil && !s.views.has(who.ID) {
		err = statusOf(errRemoved)
	}
	if err != nil {
		return caller{}, err
	}
	return who, nil
}

// identify returns who calls, by its certificate alone, which must be good now:
// that it was in the handshake is not enough.
func (s *Server) identify(ctx context.Context) (caller, error) {
	conn, ok := connectionOf(ctx)
	if !ok || conn.isStranger() {
		return caller{}, errStranger
	}
	p := conn.peer
	authority, _ := s.authority()
	c, known := authority.Find(p.Certificate.SerialNumber.Text(16))
	switch {
	case !known, c.ID != p.ID, !c.Revoked.IsZero(), !time.Now().Before(c.Expires), !isGood(s.self.Trust(), p):
		return caller{}, errAttest
	}
	return caller{ID: p.ID, connection: conn, certificate: c}, nil
}

// lineageOf returns what the certificates of one agent have in common; for one
// that the ledger does not know, what is its own.
func (s *Server) lineageOf(c *x509.Certificate) string {
	serial := c.SerialNumber.Text(16)
	if authority, _ := s.authority(); authority != nil {
		if known, ok := authority.Find(serial); ok {
			return known.Lineage
		}
	}
	return serial
}

// openMethods begins the names of the methods that are open to strangers.
var openMethods = "/" + chancerypb.Attestation_ServiceDesc.ServiceName + "/"

// admitCall lets strangers attest, and do nothing else. Each method asks who
// calls as well; what one may forget stays shut.
func admitCall(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if err := admit(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handle(ctx, req)
}

// admitStream is admitCall for streams.
func admitStream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if err := admit(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	return handle(server, stream)
}

func admit(ctx context.Context, method string) error {
	c, ok := connectionOf(ctx)
	if !ok || c.isStranger() && !strings.HasPrefix(method, openMethods) {
		return errStranger
	}
	return nil
}

func gatewayID(name string) identity.ID {
	return identity.ID{Role: identity.RoleGateway, Name: name}
}

func serviceID(name string) identity.ID {
	return identity.ID{Role: identity.RoleService, Name: name}
}
