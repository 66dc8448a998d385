package extauthz_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// null does no work: what remains is the cost of the round trip.
type null struct{}

func (null) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return &authv3.CheckResponse{
		Status:       &status.Status{},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}},
	}, nil
}

// workload is what gateways see: a hundred tokens, of ten checks eight allowed,
// one forbidden and one with a token that is not valid. An allowed check ends
// with a freshly minted Passport.
func workload(b *testing.B, f *fixture) []*authv3.CheckRequest {
	b.Helper()
	f.gateway.Routes[0].Allow = `'sales' in user.groups`
	var requests []*authv3.CheckRequest
	for i := range 100 {
		token := f.token(b, map[string]any{"sub": fmt.Sprintf("user-%d", i)})
		switch i % 10 {
		case 0:
			token = f.token(b, map[string]any{"groups": []string{"ops"}, "jti": i})
		case 1:
			token = token[:len(token)-4] + "AAAA"
		}
		c := f.atGateway(b).authorization("Bearer " + token)
		for _, name := range []string{"user-agent", "accept", "accept-language", "cookie", "x-forwarded-proto", "referer"} {
			c = c.header(name, "a value of a usual length, as browsers send them")
		}
		requests = append(requests, c.request())
	}
	return requests
}

func BenchmarkCheck(b *testing.B) {
	f := newFixture(b)
	atGateway := workload(b, f)
	atService := []*authv3.CheckRequest{f.atService(b).request()}
	for _, row := range []struct {
		name     string
		server   authv3.AuthorizationServer
		requests []*authv3.CheckRequest
	}{
		{"null", null{}, atGateway},
		{"gateway", f.server(b, f.gatewayState(b)), atGateway},
		{"service", f.server(b, f.serviceState(b)), atService},
	} {
		b.Run("direct/"+row.name, func(b *testing.B) {
			b.ReportAllocs()
			run(b, row.requests, row.server.Check)
		})
		b.Run("grpc/"+row.name, func(b *testing.B) {
			client := serve(b, row.server)
			b.SetParallelism(16)
			run(b, row.requests, func(ctx context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
				return client.Check(ctx, r)
			})
		})
	}
}

func run(
	b *testing.B, requests []*authv3.CheckRequest,
	check func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error),
) {
	b.Helper()
	b.RunParallel(func(p *testing.PB) {
		for i := rand.IntN(len(requests)); p.Next(); i++ {
			if _, err := check(b.Context(), requests[i%len(requests)]); err != nil {
				b.Error(err)
			}
		}
	})
}

func serve(b *testing.B, s authv3.AuthorizationServer) authv3.AuthorizationClient {
	b.Helper()
	path := filepath.Join(b.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer()
	authv3.RegisterAuthorizationServer(server, s)
	go func() { _ = server.Serve(listener) }()
	b.Cleanup(server.Stop)
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	return authv3.NewAuthorizationClient(conn)
}

// BenchmarkRefresh takes new keys with a policy of a hundred rules: with the
// policy compiled again, and without.
func BenchmarkRefresh(b *testing.B) {
	f := newFixture(b)
	for i := range 100 {
		f.service.Routes = append(f.service.Routes, &chancerypb.RoutePolicy{
			Name: fmt.Sprint("route-", i), Path: fmt.Sprintf("/r%d/{id}", i), Callers: []string{gatewayID},
			Allow: `'sales' in user.groups && tenant == 'acme' && params.id.startsWith('a') && caller.name == 'public'`,
		})
	}
	rules, err := extauthz.Compile(f.service)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("policy and keys", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := newState(f.service, f.keysOf()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("keys", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := rules.With(f.keysOf()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
