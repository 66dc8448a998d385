package extauthz_test

import (
	"fmt"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/wire"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

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
			token = token[:len(token)-8] + "AAAAAAAA"
		}
		c := f.atGateway(b).authorization("Bearer " + token)
		for _, name := range []string{"user-agent", "accept", "accept-language", "cookie", "x-forwarded-proto", "referer"} {
			c = c.header(name, "a value of a usual length, as browsers send them")
		}
		requests = append(requests, c.request())
	}
	return requests
}

// BenchmarkCheck is what a check costs beside gRPC; make bench-authz measures
// it with that.
func BenchmarkCheck(b *testing.B) {
	f := newFixture(b)
	for _, row := range []struct {
		name     string
		server   *extauthz.Server
		requests []*authv3.CheckRequest
	}{
		{"gateway", f.server(b, f.gatewayState(b)), workload(b, f)},
		{"service", f.server(b, f.serviceState(b)), []*authv3.CheckRequest{f.atService(b).request()}},
	} {
		b.Run(row.name, func(b *testing.B) { decide(b, row.server, row.requests) })
	}
}

func decide(b *testing.B, s *extauthz.Server, requests []*authv3.CheckRequest) {
	b.Helper()
	var encoded [][]byte
	for _, r := range requests {
		data, err := proto.Marshal(r)
		if err != nil {
			b.Fatal(err)
		}
		encoded = append(encoded, data)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		s.Answer(b.Context(), wire.ParseRequest(encoded[i%len(encoded)])).Append(nil)
	}
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
