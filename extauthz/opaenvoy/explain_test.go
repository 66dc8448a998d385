package opaenvoy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/extauthz/opaenvoy"
)

const explained = `package envoy.authz

default allow := false

allow if input.attributes.request.http.headers.role == "secret-boss"

allow if {
	input.parsed_path[0] == "public"
	input.attributes.request.http.method == "GET"
	input.parsed_query.q
}

contradiction := true if input.parsed_path

contradiction := {"allowed": false} if input.parsed_path

object := {"allowed": false, "http_status": 418} if input.source_principal

wrong := 1 if input.attributes.source.address.socketAddress.address
`

// A record says which rule decided and what it read, but for what may hold
// secrets; which of several it was is told of requests that have not happened.
func TestDecisionsAreExplained(t *testing.T) {
	t.Parallel()
	read := `[{input.attributes.request.http.headers.role (not kept)} {input.parsed_path.0 "private"} {input.attributes.request.http.method "GET"} {input.parsed_query.q (not kept)}]`
	for name, c := range map[string]struct {
		query, path                                 string
		reason, recorded, explained, values, caused string
	}{
		"allowed":     {"allow", "/public?q=1", "allowed", "example.rego:5:1, example.rego:7:1", "example.rego:7:1", "[]", ""},
		"denied":      {"allow", "/private", "policy_denied", "example.rego:3:1, example.rego:5:1, example.rego:7:1", "example.rego:3:1", read, ""},
		"conflict":    {"contradiction", "/x", "policy_error", "example.rego:15:1", "example.rego:15:1", `[{input.parsed_path ["x"]}]`, "example.rego:15: eval_conflict_error"},
		"undefined":   {"object", "/x", "policy_undefined", "example.rego:17:1", "example.rego:17:1", "[{input.source_principal (missing)}]", "undefined decision"},
		"no decision": {"wrong", "/x", "policy_illegal_decision", "example.rego:19:1", "example.rego:19:1", `[{input.attributes.source.address.socketAddress.address "192.0.2.1"}]`, "not a boolean"},
		"no path":     {"allow", "//x", "path_ambiguous", "", "", "[]", "ambiguous path"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var kept *audit.Explained
			server, _ := serve(t, setup{module: explained, query: "data.envoy.authz." + c.query, config: opaenvoy.Config{
				Record: func(e *audit.Explained) error { kept = e; return nil },
			}})
			req := request(&authv3.AttributeContext_HttpRequest{Method: "GET", Path: c.path, Headers: map[string]string{"role": "secret"}})
			req.Attributes.Source = &authv3.AttributeContext_Peer{Address: &corev3.Address{
				Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: "192.0.2.1"}},
			}}
			if _, err := server.Check(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			supposed := server.Explain(t.Context(), req, time.Time{})
			for rule, e := range map[*string]*audit.Explained{&c.recorded: kept, &c.explained: supposed} {
				if e.Reason != c.reason || e.Rule != *rule || fmt.Sprint(e.Values) != c.values || !strings.Contains(e.Cause, c.caused) || (e.Cause == "") != (c.caused == "") {
					t.Errorf("%s by %q: %q, %v", e.Reason, e.Rule, e.Cause, e.Values)
				}
				if len(e.Trace) != 1 || e.Trace[0].Subject != *rule {
					t.Errorf("looked at %+v", e.Trace)
				}
			}
			if kept.Hypothetical || !supposed.Hypothetical {
				t.Error("what has happened is not told from what has not")
			}
		})
	}
}
