package extauthz_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/passport"
)

// module is in the tests' policy, "shop". Its rules are for calls of the fixture.
const module = `package shop

import input.attributes.request.http
import input.identity

yes := true

no := false

text := "true"

decision := {"allowed": true}

set contains x if some x in [true]

nowhere if identity.user.id == "nobody"

contradiction := true if http.method == "GET"

contradiction := false if http.method == "GET"

error if 1 / (count(identity.user.groups) - 1) == 0

failing if not to_number(http.headers["x-request-id"]) == 1

endless if {
	some a in numbers.range(1, 1000)
	some b in numbers.range(1, 1000)
	some c in numbers.range(1, 1000)
	a + b + c == 0
}

who := {"user": identity.user, "client": identity.client, "caller": identity.caller, "tenant": identity.tenant, "params": identity.params}

at_gateway if {
	identity.user == {"id": "alice", "groups": ["sales"], "roles": ["seller"], "permissions": ["sell"], "provider": "staff"}
	identity.client == {"id": "web"}
	identity.tenant == "acme"
	not identity.params
	not identity.caller
	not identity.passport
}

at_service if {
	identity.user == {"id": "alice", "groups": ["sales"], "roles": ["seller"], "permissions": ["sell"], "provider": "staff"}
	identity.client == {"id": "web"}
	identity.caller == {"id": "spiffe://shop.example/gateway/public", "role": "gateway", "name": "public"}
	identity.tenant == "acme"
	identity.params == {"id": "1"}
	identity.passport.bound == {"order": "1"}
}

request if {
	input.parsed_path == ["orders", "1"]
	input.parsed_query == {"x": ["y"]}
	http.headers["x-request-id"] == "req-1"
	not "parsed_body" in object.keys(input)
}

large if data.limits.large[identity.tenant] > 100

now if time.now_ns() > identity.user.auth_time

body if input.parsed_body.amount < 100

default open := false

open if secret_role

open if http.method == "GET"

secret_role if {
	identity.user.groups == ["boss"]
	identity.params.id == "1"
	http.headers["x-role"] == "boss"
	input.parsed_path[1] == "1"
}

default shut := false

shut if secret_role

personal if {
	identity.user.id == "no"
	identity.user == {}
	identity.tenant == "no"
	identity.client.id == "no"
	identity.ip == "no"
	identity.params == {}
	input.parsed_path == []
	input.attributes.source.address.socketAddress.address == "no"
	input.identity == {}
	input.attributes.request.http.path == "no"
}

personal if to_number(identity.user.id) == 1
`

// at returns where a rule of the module stands.
func at(t *testing.T, rules ...string) string {
	t.Helper()
	for i, rule := range rules {
		before, _, ok := strings.Cut(module, "\n"+rule)
		if !ok {
			t.Fatalf("no rule %q", rule)
		}
		rules[i] = fmt.Sprintf("shop.rego:%d:1", strings.Count(before, "\n")+2)
	}
	return strings.Join(rules, ", ")
}

func shopPolicy() []*chancerypb.Rego {
	return []*chancerypb.Rego{{Name: "shop", Modules: []*chancerypb.RegoModule{{File: "shop.rego", Text: module}}}}
}

// ask has the first route ask a rule of the policy, beside a condition.
func ask(p *chancerypb.Policy, rule, allow string) {
	p.Rego, p.Data = shopPolicy(), map[string][]byte{"limits": []byte(`{"large": {"acme": 101, "other": 12345678901234567890}}`)}
	p.Roles = []*chancerypb.Role{{Name: "seller", Groups: []string{"sales"}, Permissions: []string{"sell"}}}
	p.Routes[0].Rego = &chancerypb.RegoRule{Module: "shop", Query: "data.shop." + rule}
	p.Routes[0].Allow = allow
}

func TestRegoDecides(t *testing.T) {
	t.Parallel()
	denied, undecided := outcome{403, "policy_denied", ""}, outcome{403, "policy_error", ""}
	for name, row := range map[string]struct {
		rule, allow string
		want        outcome
	}{
		"both allow":                    {"yes", "true", outcome{200, "allowed", ""}},
		"the policy refuses":            {"no", "true", denied},
		"the condition refuses":         {"yes", "false", denied},
		"both refuse":                   {"no", "false", denied},
		"the condition cannot tell":     {"yes", "request.headers['x-y'] == []", undecided},
		"undefined":                     {"nowhere", "true", denied},
		"text":                          {"text", "true", undecided},
		"an object, as for the plugin":  {"decision", "true", undecided},
		"a set":                         {"set", "true", undecided},
		"contradicts itself":            {"contradiction", "true", undecided},
		"a function fails, under not":   {"failing", "true", undecided},
		"divides by zero":               {"error", "true", undecided},
		"takes too long":                {"endless", "true", undecided},
		"refused before it is too long": {"endless", "false", denied},
		"request":                       {"request", "true", outcome{200, "allowed", ""}},
		"data set":                      {"large", "true", outcome{200, "allowed", ""}},
		"no time of login":              {"now", "true", denied},
		"no body":                       {"body", "true", denied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			ask(f.gateway, row.rule, row.allow)
			ask(f.service, row.rule, row.allow)
			service := f.atService(t)
			service.path = "/orders/1?x=y"
			if got := inTime(t, f.server(t, f.gatewayState(t)), f.atGateway(t).request()); got != row.want {
				t.Errorf("gateway: got %+v, want %+v", got, row.want)
			}
			if got := inTime(t, f.server(t, f.serviceState(t)), service.request()); got != row.want {
				t.Errorf("service: got %+v, want %+v", got, row.want)
			}
		})
	}
}

func TestRegoWithoutCondition(t *testing.T) {
	t.Parallel()
	for rule, want := range map[string]string{"yes": "allowed", "no": "policy_denied"} {
		f := newFixture(t)
		ask(f.gateway, rule, "")
		if got := inTime(t, f.server(t, f.gatewayState(t)), f.atGateway(t).request()); got.reason != want {
			t.Errorf("%s: got %+v", rule, got)
		}
	}
}

// What is explained is decided as it would be.
func TestRegoIsExplained(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ask(f.gateway, "request", "true")
	h := extauthz.Hypothesis{Method: "GET", Target: "/orders/1?x=y", IP: "192.0.2.1", Headers: []extauthz.HypotheticalHeader{
		{Name: "authorization", Value: "Bearer " + f.token(t, nil)}, {Name: "x-request-id", Value: "req-1"},
	}}
	s := f.server(t, f.gatewayState(t))
	if r := s.Explain(t.Context(), &h); !r.Allowed() || r.Rule != at(t, "request if") {
		t.Errorf("%s by %s: %v", r.Reason, r.Rule, r.Cause)
	}
	h.Target = "/orders/2?x=y"
	if r := s.Explain(t.Context(), &h); r.Reason != "policy_denied" || r.Rule != at(t, "request if") {
		t.Errorf("%s by %s: %v", r.Reason, r.Rule, r.Cause)
	}
}

// A record says which rule of the policy decided, and never that it was the
// condition, which allowed. Which of several it was, only who asks is told.
func TestRegoRuleIsTold(t *testing.T) {
	t.Parallel()
	read := `[{input.identity.user.groups ["sales"]} {input.identity.params.id "1"} {input.attributes.request.http.headers.x-role (not kept)} {input.parsed_path.1 "1"}]`
	for rule, want := range map[string]struct {
		reason, recorded, explained, values, cause string
	}{
		"yes":           {"allowed", at(t, "yes :="), at(t, "yes :="), "[]", ""},
		"no":            {"policy_denied", at(t, "no :="), at(t, "no :="), "[]", ""},
		"open":          {"allowed", at(t, "open if secret", "open if http"), at(t, "open if http"), "[]", ""},
		"shut":          {"policy_denied", at(t, "default shut", "shut if"), at(t, "default shut"), read, ""},
		"nowhere":       {"policy_denied", at(t, "nowhere if"), at(t, "nowhere if"), `[{input.identity.user.id "alice"}]`, "undefined decision"},
		"contradiction": {"policy_error", at(t, "contradiction := false"), at(t, "contradiction := false"), `[{input.attributes.request.http.method "GET"}]`, "shop.rego:"},
		"text":          {"policy_error", at(t, "text :="), at(t, "text :="), "[]", "neither true nor false"},
	} {
		t.Run(rule, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			ask(f.service, rule, "true")
			r := f.recorded(t, f.serviceState(t), nil)
			check(t, r.Server, f.atService(t).header("x-role", "secret").request())
			got := r.ring.Last(1, nil)[0]
			if got.Reason != want.reason || got.Rule != want.recorded || !strings.Contains(got.Cause, want.cause) || fmt.Sprint(got.Values) != want.values {
				t.Errorf("recorded %s by %q: %q, %v", got.Reason, got.Rule, got.Cause, got.Values)
			}
			if last := got.Trace[len(got.Trace)-1]; last.What != "rego" || last.Subject != want.recorded {
				t.Errorf("looked at %+v", got.Trace)
			}
			explained := r.Explain(t.Context(), &extauthz.Hypothesis{
				Method: "GET", Target: "/orders/1", Caller: "gateway/public",
				Headers: []extauthz.HypotheticalHeader{{Name: "txn-token", Value: f.passport(t, func(*passport.Passport) {})}, {Name: "x-role", Value: "secret"}},
			})
			if explained.Reason != want.reason || explained.Rule != want.explained || fmt.Sprint(explained.Values) != want.values {
				t.Errorf("explained %s by %q: %v, %v", explained.Reason, explained.Rule, explained.Cause, explained.Values)
			}
		})
	}
}

// A03: as of conditions, see TestRecordsAreRedacted.
func TestRegoIsRedacted(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ask(f.gateway, "personal", "")
	f.gateway.Decisions = &chancerypb.Decisions{User: "omit", Tenant: "omit", Client: "omit", Ip: "omit", Path: "omit"}
	r := f.recorded(t, f.gatewayState(t), nil)
	c := f.atGateway(t).authorization("Bearer " + f.token(t, map[string]any{"sub": "personal-user", "tenant": "personal-tenant", "client_id": "personal-client"}))
	c.path, c.ip = "/orders/personal-id", "192.0.2.77"
	if _, o := check(t, r.Server, c.request()); o.reason != "policy_error" {
		t.Fatalf("answered %+v", o)
	}
	kept := r.ring.Last(1, nil)[0]
	if len(kept.Values) < 9 {
		t.Errorf("values are %v", kept.Values)
	}
	for _, text := range []string{r.lines(), fmt.Sprintf("%+v", kept), r.log.String()} {
		if strings.Contains(text, "personal-") || strings.Contains(text, "192.0.2") {
			t.Errorf("told:\n%s", text)
		}
	}
}

// Policies see what conditions see, and of a service what its Passport says.
func TestRegoSeesIdentity(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ask(f.gateway, "at_gateway", "true")
	ask(f.service, "at_service", "true")
	if got := inTime(t, f.server(t, f.gatewayState(t)), f.atGateway(t).request()); got.reason != "allowed" {
		t.Errorf("gateway: %+v", got)
	}
	service := f.atService(t).header("txn-token", f.passport(t, func(p *passport.Passport) { p.Bound = map[string]string{"order": "1"} }))
	if got := inTime(t, f.server(t, f.serviceState(t)), service.request()); got.reason != "allowed" {
		t.Errorf("service: %+v", got)
	}
}

// What a client sends is data: it cannot pose as an identity, nor be taken for a
// name or an expression.
func TestRegoTakesNothingFromClients(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ask(f.gateway, "nowhere", "true")
	s := f.server(t, f.gatewayState(t))
	for name, c := range map[string]call{
		"header": f.atGateway(t).header("identity", `{"user":{"id":"nobody"}}`),
		"query":  func() call { c := f.atGateway(t); c.path = "/orders/1?identity.user.id=nobody"; return c }(),
		"user":   f.atGateway(t).authorization("Bearer " + f.token(t, map[string]any{"sub": `nobody" or true`})),
		"client": f.atGateway(t).authorization("Bearer " + f.token(t, map[string]any{"client_id": `x","user":{"id":"nobody"},"y":"`})),
	} {
		if got := inTime(t, s, c.request()); got.reason != "policy_denied" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestRegoReadsBodies(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ask(f.gateway, "body", "")
	f.gateway.Routes[0].MaxBody = 1024
	s := f.server(t, f.gatewayState(t))
	request := func(kind, body string, more ...string) *authv3.CheckRequest {
		c := f.atGateway(t).header("content-type", kind).header("content-length", more...)
		if len(more) > 1 {
			c = c.header("content-length", more[0]).header(more[1], more[2])
		}
		r := c.request()
		r.Attributes.Request.Http.RawBody = []byte(body)
		r.Attributes.Request.Http.Size = int64(len(body))
		return r
	}
	const json = "application/json"
	for name, row := range map[string]struct {
		request *authv3.CheckRequest
		want    outcome
	}{
		"good":            {request(json, `{"amount": 99}`, "14"), outcome{200, "allowed", ""}},
		"refused":         {request(json, `{"amount": 100}`, "15"), outcome{403, "policy_denied", ""}},
		"another type":    {request("text/plain", `{"amount": 99}`, "14"), outcome{403, "policy_denied", ""}},
		"member twice":    {request(json, `{"amount": 99, "amount": 100}`, "29"), outcome{403, "policy_error", ""}},
		"not JSON":        {request(json, `{"amount": 99`, "13"), outcome{403, "policy_error", ""}},
		"compressed":      {request(json, `{"amount": 99}`, "14", "content-encoding", "gzip"), outcome{403, "policy_denied", ""}},
		"cut off":         {request(json, `{"amount": 99}`, "14", "x-envoy-auth-partial-body", "true"), outcome{413, "body_truncated", ""}},
		"nothing":         {request(json, ``, "0"), outcome{403, "policy_denied", ""}},
		"number too long": {request(json, `{"amount": 1e999999999}`, "23"), outcome{403, "policy_error", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := inTime(t, s, row.request); got != row.want {
				t.Errorf("got %+v, want %+v", got, row.want)
			}
		})
	}
}

// Whoever waits no more is told nothing, at once.
func TestRegoIsCancelled(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ask(f.gateway, "endless", "")
	s := f.server(t, f.gatewayState(t))
	ctx, cancel := context.WithTimeout(t.Context(), 1)
	defer cancel()
	response, err := s.Check(ctx, f.atGateway(t).request())
	if err != nil || response.GetDynamicMetadata().AsMap()["reason"] != "cancelled" {
		t.Errorf("%v, %v", response, err)
	}
}

// What cannot decide is refused before a request comes: the last good policy
// decides on.
func TestCompileRefusesRego(t *testing.T) {
	t.Parallel()
	end := strings.Count(module, "\n") + 1
	for name, row := range map[string]struct {
		change func(*chancerypb.Policy)
		want   string
	}{
		"no such policy": {func(p *chancerypb.Policy) { p.Rego = nil }, `there is no rego "shop"`},
		"no such rule": {
			func(p *chancerypb.Policy) { p.Routes[0].Rego.Query = "data.shop.nothing" },
			`query "data.shop.nothing": the policy has nothing of that name`,
		},
		"expression":     {func(p *chancerypb.Policy) { p.Routes[0].Rego.Query = "data.shop.yes == true" }, "data.shop.yes == true"},
		"no query":       {func(p *chancerypb.Policy) { p.Routes[0].Rego.Query = "" }, `rego "shop"`},
		"no modules":     {func(p *chancerypb.Policy) { p.Rego[0].Modules = nil }, "data.shop.yes"},
		"does not parse": {func(p *chancerypb.Policy) { p.Rego[0].Modules[0].Text += "yes {" }, fmt.Sprintf("shop.rego:%d:5", end)},
		"calls others": {func(p *chancerypb.Policy) {
			p.Rego[0].Modules[0].Text += "\nx := http.send({})\n"
		}, fmt.Sprintf("shop.rego:%d:6", end+1)},
		"of Rego v0": {func(p *chancerypb.Policy) {
			p.Rego[0].Modules[0].Text = "package shop\n\nyes { true }\n"
		}, "shop.rego:3:1"},
		"policy twice": {func(p *chancerypb.Policy) { p.Rego = append(p.Rego, p.GetRego()...) }, `rego "shop" stands twice`},
		"data where a module is": {
			func(p *chancerypb.Policy) { p.Data["shop"] = []byte(`{"yes": true}`) },
			"shop",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			ask(f.gateway, "yes", "")
			row.change(f.gateway)
			if _, err := extauthz.Compile(f.gateway); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
}

func TestRegoV0(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ask(f.gateway, "yes", "")
	f.gateway.Rego[0].V0, f.gateway.Rego[0].Modules[0].Text = true, "package shop\n\nyes { input.identity.user.id == \"alice\" }\n"
	if got := inTime(t, f.server(t, f.gatewayState(t)), f.atGateway(t).request()); got.reason != "allowed" {
		t.Errorf("%+v", got)
	}
}

// The record says which rule it was, and nothing that it read.
func TestRegoIsRecorded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ask(f.gateway, "failing", "true")
	r := f.recorded(t, f.gatewayState(t), nil)
	c := f.atGateway(t)
	if _, got := check(t, r.Server, c.request()); got.reason != "policy_error" {
		t.Errorf("%+v", got)
	}
	kept := r.ring.Last(1, nil)
	if len(kept) != 1 || len(kept[0].Trace) == 0 {
		t.Fatalf("kept %+v", kept)
	}
	if last := kept[0].Trace[len(kept[0].Trace)-1]; last.What != "rego" || last.Subject != "shop.rego:24:16" || last.Outcome != "policy_error" {
		t.Errorf("trace ends with %+v", last)
	}
	if text := r.log.String(); !strings.Contains(text, "shop.rego:24: eval_builtin_error: to_number failed") || strings.Contains(text, "strconv") {
		t.Errorf("log is %s", text)
	}
}
