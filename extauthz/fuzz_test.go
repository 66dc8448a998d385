package extauthz_test

import (
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
)

// No bytes make Answer panic or answer what nobody reads, and what it allows is for the
// route that it says, with one token, from who may call.
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
		malformed := proto.Unmarshal(data, &request) != nil
		if _, got := answer(t, gateway, data); got.status == 200 && (malformed || !wellFormed(&request, atGateway)) {
			t.Errorf("gateway allowed %v", &request)
		}
		if _, got := answer(t, service, data); got.status == 200 && (malformed || !wellFormed(&request, atService)) {
			t.Errorf("service allowed %v", &request)
		}
	})
}

// wellFormed looks at a request by itself, as far as it may differ from the good
// call in nothing that matters.
func wellFormed(request *authv3.CheckRequest, good call) bool {
	attributes := request.GetAttributes()
	http := attributes.GetRequest().GetHttp()
	tokens := 0
	for _, h := range http.GetHeaderMap().GetHeaders() {
		if strings.EqualFold(h.GetKey(), good.headers[0][0]) {
			tokens++
		}
	}
	if _, merged := http.GetHeaders()[good.headers[0][0]]; merged {
		tokens++
	}
	path, _, _ := strings.Cut(http.GetPath(), "?")
	return tokens == 1 && attributes.GetContextExtensions()["policy"] == good.policy &&
		attributes.GetContextExtensions()["route"] == good.route && strings.HasPrefix(path, "/orders") &&
		!strings.ContainsAny(path, ";\\#") && !strings.Contains(path, "/.") && !strings.Contains(path, "//") &&
		(good.caller == "" || attributes.GetSource().GetPrincipal() == gatewayID || attributes.GetSource().GetPrincipal() == serviceCaller)
}
