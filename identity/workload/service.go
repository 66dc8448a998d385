package workload

import (
	"context"
	"crypto/x509"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// service implements the methods. Those of other profiles are unimplemented.
type service struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	server *Server
}

// FetchX509SVID implements the Workload API.
func (s *service) FetchX509SVID(_ *workload.X509SVIDRequest, stream workload.SpiffeWorkloadAPI_FetchX509SVIDServer) error {
	return follow(s.server, stream, func(r *responses) (*workload.X509SVIDResponse, error) {
		if r.revoked {
			return nil, status.Error(codes.PermissionDenied, "the workload's certificates were revoked")
		}
		return r.svid, nil
	})
}

// FetchX509Bundles implements the Workload API.
func (s *service) FetchX509Bundles(_ *workload.X509BundlesRequest, stream workload.SpiffeWorkloadAPI_FetchX509BundlesServer) error {
	return follow(s.server, stream, func(r *responses) (*workload.X509BundlesResponse, error) { return r.bundles, nil })
}

// follow sends what choose takes of the state, and again whenever that is
// another. Of nil nothing is sent yet.
func follow[M any, P interface {
	*M
	proto.Message
}](s *Server, stream grpc.ServerStreamingServer[M], choose func(*responses) (*M, error)) error {
	ctx := stream.Context()
	var sent *M
	for {
		state, changed := s.current()
		m, err := choose(state)
		if err != nil {
			return err
		}
		if m != nil && !proto.Equal(P(m), P(sent)) {
			if err := stream.Send(m); err != nil {
				return err
			}
			sent = m
		}
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-changed:
		}
	}
}

// responses are a state as it is sent.
type responses struct {
	svid    *workload.X509SVIDResponse
	bundles *workload.X509BundlesResponse
	revoked bool
}

func encode(state State) (*responses, error) {
	r := &responses{revoked: state.Revoked}
	if state.TrustDomain == "" {
		return r, nil
	}
	bundle := concatenate(state.Roots)
	r.bundles = &workload.X509BundlesResponse{
		Crl:     state.CRLs,
		Bundles: map[string][]byte{"spiffe://" + state.TrustDomain: bundle},
	}
	if state.SVID == nil {
		return r, nil
	}
	key, err := x509.MarshalPKCS8PrivateKey(state.SVID.Key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	r.svid = &workload.X509SVIDResponse{
		Crl: state.CRLs,
		Svids: []*workload.X509SVID{{
			SpiffeId:    state.SVID.SPIFFEID,
			X509Svid:    concatenate(state.SVID.Chain),
			X509SvidKey: key,
			Bundle:      bundle,
		}},
	}
	return r, nil
}

func concatenate(certificates []*x509.Certificate) []byte {
	var der []byte
	for _, c := range certificates {
		der = append(der, c.Raw...)
	}
	return der
}

// header must be on every request, with the value "true".
const header = "workload.spiffe.io"

func checkHeader(ctx context.Context) error {
	if values := metadata.ValueFromIncomingContext(ctx, header); len(values) != 1 || values[0] != "true" {
		return status.Errorf(codes.InvalidArgument, "the metadata %s: true is missing", header)
	}
	return nil
}

func requireHeader(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := checkHeader(stream.Context()); err != nil {
		return err
	}
	return handler(srv, stream)
}

func requireHeaderUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := checkHeader(ctx); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}
