package extauthz_test

import (
	"cmp"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// withBody puts a body into a request, as Envoy does.
func withBody(r *authv3.CheckRequest, body string) *authv3.CheckRequest {
	http := r.GetAttributes().GetRequest().GetHttp()
	http.RawBody, http.Size = []byte(body), int64(len(body))
	return r
}

// A body is shown to rules only whole, and only where it is said to be JSON and
// nothing else (attack rows F06, F07 and F08).
func TestBodies(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.gateway.Routes = []*chancerypb.RoutePolicy{
		{Name: "orders", Path: "/orders/**", Authentication: token("staff"), MaxBody: 64, Allow: "!(request.body.amount > 100)"},
		{Name: "unread", Path: "/unread", Authentication: token("staff"), MaxBody: 64},
		{Name: "bound", Path: "/bound", Authentication: token("staff"), MaxBody: 64, Bind: map[string]string{"amount": "string(request.body.amount)"}},
		{Name: "none", Path: "/none", Authentication: token("staff"), Allow: "!(request.body.amount > 100)"},
	}
	s := f.server(t, f.gatewayState(t))
	const small, large = `{"amount": 99}`, `{"amount": 101}`
	type change func(*authv3.AttributeContext_HttpRequest)
	same := func(*authv3.AttributeContext_HttpRequest) {}
	for name, row := range map[string]struct {
		types  []string
		body   string
		change change
		want   string
	}{
		"small":              {[]string{"application/json"}, small, same, "allowed"},
		"large":              {[]string{"application/json"}, large, same, "policy_denied"},
		"parameters":         {[]string{"Application/JSON; Charset=UTF-8"}, small, same, "allowed"},
		"quoted":             {[]string{`application/json;charset="utf-8"`}, small, same, "allowed"},
		"problem":            {[]string{"application/problem+json"}, small, same, "allowed"},
		"size not known":     {[]string{"application/json"}, large, func(h *authv3.AttributeContext_HttpRequest) { h.Size = -1 }, "policy_denied"},
		"size not told":      {[]string{"application/json"}, small, func(h *authv3.AttributeContext_HttpRequest) { h.Size = 0 }, "allowed"},
		"no type":            {nil, small, same, "policy_error"},
		"empty type":         {[]string{""}, small, same, "policy_error"},
		"text":               {[]string{"text/plain"}, small, same, "policy_error"},
		"text that is json":  {[]string{"text/x+json"}, small, same, "policy_error"},
		"form":               {[]string{"application/x-www-form-urlencoded"}, "amount=99", same, "policy_error"},
		"multipart":          {[]string{"multipart/form-data; boundary=a"}, small, same, "policy_error"},
		"other charset":      {[]string{"application/json; charset=utf-7"}, small, same, "policy_error"},
		"two charsets":       {[]string{"application/json; charset=utf-8; charset=utf-16"}, small, same, "policy_error"},
		"other parameter":    {[]string{"application/json; profile=x"}, small, same, "policy_error"},
		"two types":          {[]string{"application/json", "application/json"}, small, same, "policy_error"},
		"joined types":       {[]string{"text/plain, application/json"}, small, same, "policy_error"},
		"joined types, json": {[]string{"application/json, text/plain"}, small, same, "policy_error"},
		"encoded": {[]string{"application/json"}, small, func(h *authv3.AttributeContext_HttpRequest) {
			h.Headers = map[string]string{"content-encoding": "gzip"}
		}, "policy_error"},
		"other case": {[]string{"application/json"}, `{"amount": 99, "AMOUNT": 1000}`, same, "policy_error"},
		"duplicate":  {[]string{"application/json"}, `{"amount": 99, "amount": 1000}`, same, "policy_error"},
		"not json":   {[]string{"application/json"}, `amount: 99`, same, "policy_error"},
		"deep":       {[]string{"application/json"}, `{"a":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `}`, same, "policy_error"},
		"none":       {[]string{"application/json"}, "", same, "policy_error"},
		"partial": {[]string{"application/json"}, small, func(h *authv3.AttributeContext_HttpRequest) {
			h.Headers = map[string]string{"x-envoy-auth-partial-body": "true"}
		}, "body_truncated"},
		"whole": {[]string{"application/json"}, small, func(h *authv3.AttributeContext_HttpRequest) {
			h.Headers = map[string]string{"x-envoy-auth-partial-body": "false"}
		}, "allowed"},
		"partial, maybe": {[]string{"application/json"}, small, func(h *authv3.AttributeContext_HttpRequest) {
			h.Headers = map[string]string{"x-envoy-auth-partial-body": "False"}
		}, "body_truncated"},
		"less than there is":   {[]string{"application/json"}, small, func(h *authv3.AttributeContext_HttpRequest) { h.Size++ }, "body_truncated"},
		"not buffered":         {[]string{"application/json"}, small, func(h *authv3.AttributeContext_HttpRequest) { h.RawBody = nil }, "body_truncated"},
		"more than is allowed": {[]string{"application/json"}, `{"amount": 99,` + strings.Repeat(" ", 60) + `"a": 1}`, same, "body_truncated"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := withBody(f.atGateway(t).header("content-type", row.types...).request(), row.body)
			row.change(r.GetAttributes().GetRequest().GetHttp())
			response, got := check(t, s, r)
			status := cmp.Or(map[string]int{"allowed": 200, "body_truncated": 413}[row.want], 403)
			if got != (outcome{status, row.want, ""}) {
				t.Errorf("got %+v, want %s", got, row.want)
			}
			if code := problemOf(t, response).Code; row.want == "body_truncated" && code != "bad_request" {
				t.Errorf("code %s", code)
			}
		})
	}
	// Whatever reads a body is shown none of which there may be more, and a route
	// that asks for none has none.
	for route, want := range map[string]string{"unread": "body_truncated", "bound": "body_truncated", "none": "policy_error"} {
		c := f.atGateway(t).header("content-type", "application/json")
		c.route, c.path = route, "/"+route
		r := withBody(c.request(), small)
		r.GetAttributes().GetRequest().GetHttp().Size++
		if _, got := check(t, s, r); got.reason != want {
			t.Errorf("%s: %+v, want %s", route, got, want)
		}
	}
}
