package grpcpassport_test

import (
	"context"
	"crypto/ed25519"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/chancery-mesh/chancery/passport"
	"github.com/chancery-mesh/chancery/passport/grpcpassport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// health answers only calls whose context has a passport, and says by its
// status whether the request id came along.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
}

func answer(ctx context.Context) *grpc_health_v1.HealthCheckResponse {
	p, ok := passport.FromContext(ctx)
	ids := metadata.ValueFromIncomingContext(ctx, "x-request-id")
	r := &grpc_health_v1.HealthCheckResponse{}
	if ok && len(ids) == 1 && ids[0] == p.ID {
		r.Status = grpc_health_v1.HealthCheckResponse_SERVING
	}
	return r
}

func (health) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	return answer(ctx), nil
}

func (health) Watch(_ *grpc_health_v1.HealthCheckRequest, s grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	return s.Send(answer(s.Context()))
}

func start(t *testing.T, v *passport.Verifier) grpc_health_v1.HealthClient {
	t.Helper()
	server := grpc.NewServer(
		grpc.ChainUnaryInterceptor(grpcpassport.UnaryServer(v)),
		grpc.ChainStreamInterceptor(grpcpassport.StreamServer(v)),
	)
	grpc_health_v1.RegisterHealthServer(server, health{})
	listener := bufconn.Listen(1 << 16)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:test",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithChainUnaryInterceptor(grpcpassport.UnaryClient),
		grpc.WithChainStreamInterceptor(grpcpassport.StreamClient),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return grpc_health_v1.NewHealthClient(conn)
}

func TestInterceptors(t *testing.T) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := passport.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	const gateway = "spiffe://shop.example/gateway/public"
	v, err := passport.NewVerifier(passport.VerifierConfig{
		TrustDomain: "shop.example",
		Keys:        passport.KeySet{s.KeyID(): {Owner: gateway, Public: s.Public(), Providers: []string{"staff"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	token, err := s.Mint(&passport.Passport{
		ID: "req-1", Subject: "alice", Audience: "shop.example", Provider: "staff", Gateway: gateway,
		IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute),
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := v.Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	client := start(t, v)
	with := func(tokens ...string) context.Context {
		ctx := t.Context()
		for _, token := range tokens {
			ctx = metadata.AppendToOutgoingContext(ctx, "txn-token", token)
		}
		return ctx
	}
	for name, row := range map[string]struct {
		ctx  context.Context
		want codes.Code
	}{
		"propagated":           {passport.NewContext(t.Context(), p), codes.OK},
		"propagated over junk": {passport.NewContext(with("junk", "junk"), p), codes.OK},
		"none":                 {t.Context(), codes.Unauthenticated},
		"two":                  {with(token, token), codes.Unauthenticated},
		"forged":               {with(token[1:]), codes.Unauthenticated},
		"not verified":         {passport.NewContext(t.Context(), &passport.Passport{ID: "x"}), codes.Unauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			unary, err := client.Check(row.ctx, &grpc_health_v1.HealthCheckRequest{})
			check(t, "unary", unary, err, row.want)
			stream, err := client.Watch(row.ctx, &grpc_health_v1.HealthCheckRequest{})
			if err != nil {
				t.Fatal(err)
			}
			first, err := stream.Recv()
			check(t, "stream", first, err, row.want)
		})
	}
}

func check(t *testing.T, kind string, r *grpc_health_v1.HealthCheckResponse, err error, want codes.Code) {
	t.Helper()
	if status.Code(err) != want {
		t.Errorf("%s: %v, want %v", kind, err, want)
	}
	if want == codes.OK && r.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("%s: no passport, or no request id", kind)
	}
}
