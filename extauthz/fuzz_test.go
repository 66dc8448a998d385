package extauthz_test

import (
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
)

// No bytes make Check panic or return an error, and what it allows carries a
// token that was given out.
func FuzzCheck(f *testing.F) {
	x := newFixture(f)
	gateway, service := x.server(f, x.gatewayState(f)), x.server(f, x.serviceState(f))
	atGateway, atService := x.atGateway(f), x.atService(f)
	for _, c := range []call{atGateway, atService} {
		for _, change := range []func(*call){
			func(*call) {},
			func(c *call) { c.path = "/orders/%2e%2e/admin" },
			func(c *call) { c.headers = append(c.headers, c.headers...) },
			func(c *call) { c.route = "" },
			func(c *call) { c.merged, c.headers = map[string]string{c.headers[0][0]: c.headers[0][1]}, nil },
		} {
			seed := c
			change(&seed)
			data, err := proto.Marshal(seed.request())
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var request authv3.CheckRequest
		if proto.Unmarshal(data, &request) != nil {
			return
		}
		_, got := check(t, gateway, &request)
		if got.status == 200 && !strings.Contains(string(data), strings.TrimPrefix(atGateway.headers[0][1], "Bearer ")) {
			t.Errorf("gateway allowed %v", &request)
		}
		_, got = check(t, service, &request)
		if got.status == 200 && !strings.Contains(string(data), atService.headers[0][1]) {
			t.Errorf("service allowed %v", &request)
		}
	})
}
