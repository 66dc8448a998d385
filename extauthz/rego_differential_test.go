package extauthz_test

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/passport"
)

// same are rules that say one thing in both languages. What is missing refuses in
// either; under "not", and where values of two types are compared, Rego has to
// be told.
var same = []struct {
	cel, rego string
	body      uint32
	// service alone knows it.
	service bool
}{
	{cel: `'sales' in user.groups`, rego: `"sales" in identity.user.groups`},
	{cel: `user.groups.exists(g, g.startsWith('ad'))`, rego: "some g in identity.user.groups\n startswith(g, \"ad\")"},
	{cel: `user.groups.all(g, g != 'banned')`, rego: `every g in identity.user.groups { g != "banned" }`},
	{cel: `size(user.groups) >= 2`, rego: `count(identity.user.groups) >= 2`},
	{cel: `tenant == 'acme' || tenant == 'globex'`, rego: `identity.tenant in {"acme", "globex"}`},
	{cel: `request.method == 'GET' || 'write' in user.scopes`, rego: `may_write`},
	{cel: `params.id == user.id`, rego: `identity.params.id == identity.user.id`},
	{cel: `!('admin' in request.headers['x-role'])`, rego: "roles := split(http.headers[\"x-role\"], \",\")\n not \"admin\" in roles"},
	{cel: `'1' in request.query['x']`, rego: `"1" in input.parsed_query.x`},
	{cel: `!('x' in request.query)`, rego: `not "x" in object.keys(input.parsed_query)`},
	{cel: `request.body.amount < 100`, rego: "is_number(input.parsed_body.amount)\n input.parsed_body.amount < 100", body: 1024},
	{cel: `request.body.items.all(i, i.amount > 0)`, rego: "is_array(input.parsed_body.items)\n every i in input.parsed_body.items { is_number(i.amount); i.amount > 0 }", body: 1024},
	{cel: `request.body.kind == 'refund'`, rego: `input.parsed_body.kind == "refund"`, body: 1024},
	{cel: `cidr('192.0.2.0/24').containsIP(request.ip)`, rego: `net.cidr_contains("192.0.2.0/24", identity.ip)`},
	{cel: `data.limits.large[tenant] > 100`, rego: "is_number(data.limits.large[identity.tenant])\n data.limits.large[identity.tenant] > 100"},
	{cel: `'sell' in user.permissions`, rego: `"sell" in identity.user.permissions`},
	{cel: `'seller' in user.roles && !('admin' in user.roles)`, rego: "\"seller\" in identity.user.roles\n not \"admin\" in identity.user.roles"},
	{cel: `user.acr == 'gold' && 'mfa' in user.amr`, rego: "identity.user.acr == \"gold\"\n \"mfa\" in identity.user.amr"},
	{cel: `now - user.auth_time < duration('5m')`, rego: `time.now_ns() - identity.user.auth_time < 300000000000`},
	{cel: `user.provider == 'staff' && tenant != 'globex'`, rego: "identity.user.provider == \"staff\"\n identity.tenant != \"globex\""},
	{cel: `request.path.startsWith('/orders/a')`, rego: `startswith(identity.path, "/orders/a")`},
	{cel: `request.path == '/orders/' + user.id`, rego: `identity.path == concat("/", ["/orders", identity.user.id])`},
	{cel: `params.id in ['bob', 'Älice']`, rego: `input.parsed_path[1] in ["bob", "Älice"]`},
	{cel: `client.id in ['web', 'app']`, rego: `identity.client.id in ["web", "app"]`},
	{cel: `user.id.matches('^[a-z]+$')`, rego: `regex.match("^[a-z]+$", identity.user.id)`},
	{cel: `request.host == 'api.test'`, rego: `identity.host == "api.test"`},
	{cel: `request.host != 'api.test'`, rego: `identity.host != "api.test"`},
	{cel: `!request.path.endsWith('@b')`, rego: "identity.path\n not endswith(identity.path, \"@b\")"},
	{cel: `request.raw_path.contains('%')`, rego: `contains(split(http.path, "?")[0], "%")`},
	{cel: `caller.role == 'gateway' && caller.name == 'public'`, rego: "identity.caller.role == \"gateway\"\n identity.caller.name == \"public\"", service: true},
	{cel: `passport.bound.order == params.id`, rego: `identity.passport.bound.order == identity.params.id`, service: true},
}

// sameRules returns policies with a route for each rule: by a condition, by a
// policy, and by both.
func sameRules(base *chancerypb.Policy, isService bool) (cel, rego, both *chancerypb.Policy) {
	var text strings.Builder
	text.WriteString(`package same

import input.attributes.request.http
import input.identity

may_write if http.method == "GET"

may_write if "write" in identity.user.scopes
`)
	variant := func(byRule, byPolicy bool) *chancerypb.Policy {
		p := &chancerypb.Policy{
			Name: base.GetName(), TrustDomain: base.GetTrustDomain(), Providers: base.GetProviders(), Gateways: base.GetGateways(), Minting: base.GetMinting(),
			Roles: []*chancerypb.Role{
				{Name: "seller", Groups: []string{"sales"}, Permissions: []string{"sell"}}, {Name: "admin", Groups: []string{"admins"}},
			},
			Data: map[string][]byte{"limits": []byte(`{"large": {"acme": 101, "globex": 100, "initech": "101"}}`)},
			Rego: []*chancerypb.Rego{{Name: "same", Modules: []*chancerypb.RegoModule{{File: "same.rego", Text: text.String()}}}},
		}
		for i, rule := range same {
			if rule.service && !isService {
				continue
			}
			route := &chancerypb.RoutePolicy{
				Name: strconv.Itoa(i), Path: "/orders/{id}", MaxBody: rule.body, Allow: "true",
				Authentication: base.GetRoutes()[0].GetAuthentication(), Callers: base.GetRoutes()[0].GetCallers(),
			}
			if byRule {
				route.Allow = rule.cel
			}
			if byPolicy {
				route.Rego = &chancerypb.RegoRule{Module: "same", Query: "data.same.rule_" + route.GetName()}
			}
			p.Routes = append(p.Routes, route)
		}
		return p
	}
	for i, rule := range same {
		fmt.Fprintf(&text, "\nrule_%d if {\n %s\n}\n", i, rule.rego)
	}
	return variant(true, false), variant(false, true), variant(true, true)
}

// chance makes requests.
type chance struct {
	*rand.Rand
	tokens, passports []string
}

func one[T any](c *chance, of ...T) T { return of[c.IntN(len(of))] }

func some(c *chance, of ...string) []string {
	var some []string
	for _, s := range of {
		if c.IntN(3) == 0 {
			some = append(some, s)
		}
	}
	return some
}

func newChance(t *testing.T, f *fixture, seed uint64) *chance {
	t.Helper()
	c := &chance{Rand: rand.New(rand.NewPCG(seed, seed))}
	for range 300 {
		claims := map[string]any{
			"groups": some(c, "sales", "admins", "banned", "ads", "Sales", "sales "), "sub": one(c, "alice", "bob", "a1", "Älice", "alice\n"),
			"tenant": one(c, "acme", "globex", "initech", "other"), "client_id": one[any](c, "web", "app", "cli", nil),
			"scope": one[any](c, "read write", "read", "", nil), "acr": one[any](c, "gold", "silver", nil), "amr": one[any](c, []string{"pwd", "mfa"}, []string{"pwd"}, nil),
			"auth_time": one[any](c, time.Now().Add(-time.Minute).Unix(), time.Now().Add(-time.Hour).Unix(), nil),
		}
		if c.IntN(5) == 0 {
			delete(claims, "groups")
			claims["groups"] = nil
		}
		c.tokens = append(c.tokens, f.token(t, claims))
		c.passports = append(c.passports, f.passport(t, func(p *passport.Passport) {
			p.Subject, p.Tenant, p.Client = one(c, "alice", "bob", "a1"), one(c, "acme", "globex", "initech"), one(c, "web", "cli", "")
			p.Groups, p.Scopes = some(c, "sales", "admins", "banned", "ads"), some(c, "write", "read")
			p.ACR, p.AMR = one(c, "gold", "", "silver"), some(c, "mfa", "pwd")
			p.AuthTime = one(c, time.Time{}, time.Now().Add(-time.Minute), time.Now().Add(-time.Hour))
			p.ClientIP = one(c, "192.0.2.1", "198.51.100.1")
			if c.IntN(2) == 0 {
				p.Bound = map[string]string{"order": one(c, "alice", "bob", "1")}
			}
		}))
	}
	return c
}

// request returns one for either side, good or not so good.
func (c *chance) request(t *testing.T, f *fixture, isService bool) *authv3.CheckRequest {
	call := f.atGatewayWith(c)
	if isService {
		call = f.atService(t).header("txn-token", one(c, c.passports...))
	}
	for {
		call.route = strconv.Itoa(c.IntN(len(same)))
		if i, _ := strconv.Atoi(call.route); isService || !same[i].service {
			break
		}
	}
	call.method = one(c, "GET", "POST", "PUT", "get")
	call.ip = one(c, "192.0.2.1", "198.51.100.1", "2001:db8::1")
	call.path = "/orders/" + url.PathEscape(one(c, "alice", "bob", "1", "a1", "a", "Älice", "a@b")) + one(c, "", "?x=1", "?x=2&x=1", "?x", "?x=%31", "?y=1")
	if i, _ := strconv.Atoi(call.route); strings.Contains(same[i].cel, "query") && c.IntN(4) == 0 {
		call.path = "/orders/alice?" + one(c, "x=%zz", "x=1;y=2", "x=%ff", "x=1#y") // policies refuse it whether they read it or not
	}
	if c.IntN(20) == 0 {
		call.path = one(c, "//orders/alice", "/orders/../alice", "/orders/a%2fb", "/orders", "/orders/%61lice", "/orders/a%40b")
	}
	for range c.IntN(3) {
		call.headers = append(call.headers, [2]string{one(c, "x-role", "X-Role", "x-other"), one(c, "admin", "user", "Admin", "")})
	}
	for range one(c, 1, 1, 1, 1, 0, 2) {
		call.headers = append(call.headers, [2]string{"content-type", one(c, "application/json", "application/json", "application/json; charset=utf-8",
			"application/merge-patch+json", "text/plain", "text/plain; x=application/json", "application/json; charset=utf-16", "application/x-www-form-urlencoded")})
	}
	if c.IntN(20) == 0 {
		call.headers = append(call.headers, [2]string{"content-encoding", one(c, "gzip", "identity", "")})
	}
	body := c.body()
	call.headers = append(call.headers, [2]string{"content-length", strconv.Itoa(len(body))})
	r := call.request()
	r.Attributes.Request.Http.RawBody, r.Attributes.Request.Http.Size = []byte(body), int64(len(body))
	r.Attributes.Request.Http.Host = one(c, "api.test", "API.test", "api.test:443", "evil.test", "evil.test:x")
	return r
}

func (f *fixture) atGatewayWith(c *chance) call {
	return call{policy: "gateway/public", headers: [][2]string{{"authorization", "Bearer " + one(c, c.tokens...)}, {"x-request-id", "req-1"}}}
}

func (c *chance) body() string {
	number := func() string {
		return one(c, "99", "100", "99.5", "1e2", "1.0e1", "-1", "0", `"99"`, "null", "true", "[]", "{}", "12345678901234567890", "1e400", "0.1", "-0")
	}
	switch c.IntN(8) {
	case 0:
		return one(c, "", "null", "[]", "{", `{"amount": 1, "amount": 1000}`, `{"amount": 1, "Amount": 1000}`, `{"amount": 1} {}`, "99", `"\ud800"`, "\xff", "amount=99&kind=refund")
	case 1, 2, 3:
		return `{"amount": ` + number() + `, "kind": ` + one(c, `"refund"`, `"Refund"`, "1", "null") + "}"
	default:
		items := make([]string, c.IntN(4))
		for i := range items {
			items[i] = one(c, `{"amount": `+number()+`}`, `{"amount": 1}`, `{}`)
		}
		return `{"kind": "refund", "items": ` + one(c, "["+strings.Join(items, ",")+"]", "["+strings.Join(items, ",")+"]", `{"a": {"amount": 1}}`, `"items"`, "null") + "}"
	}
}

// Conditions and policies that say the same decide the same, and a route that has
// both lets in what both let in. It runs alone: it takes all of the processors'
// time, of which other tests need some at the right moment.
func TestConditionsAndRegoDecideTheSame(t *testing.T) { //nolint:paralleltest // see above
	for name, isService := range map[string]bool{"gateway": false, "service": true} {
		t.Run(name, func(t *testing.T) { //nolint:paralleltest // see above
			f := newFixture(t)
			base := f.gateway
			if isService {
				base = f.service
			}
			servers := f.sameServers(t, base, isService)
			c := newChance(t, f, 1)
			allowed := make([]int, len(same))
			for range 5000 {
				r := c.request(t, f, isService)
				i, err := strconv.Atoi(r.GetAttributes().GetContextExtensions()["route"])
				if err != nil {
					t.Fatal(err)
				}
				byRule, byPolicy, byBoth := inTime(t, servers[0], r), inTime(t, servers[1], r), inTime(t, servers[2], r)
				if isIn := byRule.status == 200; isIn != (byPolicy.status == 200) || isIn != (byBoth.status == 200) {
					t.Fatalf("%s\nis %+v, in Rego %+v, and both %+v, of\n%v", same[i].cel, byRule, byPolicy, byBoth, r)
				}
				if byRule.status == 200 {
					allowed[i]++
				}
			}
			for i, rule := range same {
				if allowed[i] == 0 && (isService || !rule.service) {
					t.Errorf("nothing was let in by %s", rule.cel)
				}
			}
		})
	}
}

func (f *fixture) sameServers(t *testing.T, base *chancerypb.Policy, isService bool) (servers [3]*extauthz.Server) {
	t.Helper()
	cel, rego, both := sameRules(base, isService)
	for i, p := range []*chancerypb.Policy{cel, rego, both} {
		s, err := newState(p, f.keysOf())
		if err != nil {
			t.Fatal(err)
		}
		servers[i] = f.server(t, s)
	}
	return servers
}

// inTime checks again what a busy machine may have had no time for.
func inTime(t *testing.T, s *extauthz.Server, r *authv3.CheckRequest) (o outcome) {
	t.Helper()
	for range 5 {
		if _, o = check(t, s, r); o.reason != "policy_error" {
			return o
		}
	}
	return o
}
