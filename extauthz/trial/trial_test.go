package trial_test

import (
	"crypto/ed25519"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/trial"
	"github.com/chancery-mesh/chancery/internal/idptest"
	"github.com/chancery-mesh/chancery/mesh"
	"github.com/chancery-mesh/chancery/passport"
)

const documents = `
kind: Mesh
name: shop
trustDomain: shop.example
---
kind: IdentityProvider
name: staff
issuer: https://idp.shop.example
audiences: [shop-api]
claims: {user: /profile/name, groups: /realm_access/groups, tenant: org, client: azp}
idToken: {audiences: [web]}
introspection: {endpoint: https://idp.shop.example/introspect, client: pdp, secret: idp}
---
kind: IdentityProvider
name: partners
issuer: https://partners.example
audiences: [shop-api]
tokens: opaque
claims: {groups: groups, tenant: org}
introspection: {endpoint: https://partners.example/introspect, client: pdp, secret: partners}
---
kind: Users
name: tills
users:
  - {name: till-7, password: "$argon2id$v=19$m=19456,t=2,p=1$9mh/+JRhjtEqG5DalIeGow$V0Wek9an+QJROmHqlV/RoytjCrwMdM4m0nrE7qpCttU", groups: [tills], tenant: acme}
  - {name: till-8, password: "$argon2id$v=19$m=19456,t=2,p=1$9mh/+JRhjtEqG5DalIeGow$V0Wek9an+QJROmHqlV/RoytjCrwMdM4m0nrE7qpCttU", tenant: acme, disabled: true}
---
kind: Users
name: robots
users:
  - {name: robot-1, password: "$argon2id$v=19$m=19456,t=2,p=1$9mh/+JRhjtEqG5DalIeGow$V0Wek9an+QJROmHqlV/RoytjCrwMdM4m0nrE7qpCttU", tenant: acme}
---
kind: Client
name: web
owner: us
apis: [orders]
plan: gold
---
kind: APIKey
name: "0123456789"
client: web
owner: robot
tenant: acme
scopes: [read]
hash: sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
---
kind: Gateway
name: edge
profile: private
listen: 127.0.0.1:8080
tls: {certificates: [edge], clientCertificates: {trust: partners}}
authenticate: {accessToken: staff}
routes:
  - {name: critical, match: {path: /critical}, to: orders, authenticate: {introspect: true}, allow: "'sales' in user.groups"}
  - {name: opaque, match: {path: /opaque}, to: orders, authenticate: {accessToken: partners}, allow: "'sales' in user.groups"}
  - {name: both, match: {path: /both}, to: orders, authenticate: {accessToken: staff, idToken: staff, amr: [otp], maxAge: 10m}}
  - {name: key, match: {path: /key}, to: orders, authenticate: {apiKey: true, clients: registered}, allow: "'read' in user.scopes"}
  - {name: basic, match: {path: /basic}, to: orders, authenticate: {basic: tills}}
  - {name: certificate, match: {path: /certificate}, to: orders, authenticate: {clientCertificate: {names: ["spiffe://partner.example/till"], subjects: ["CN=Till"]}, tenant: optional}}
  - {name: partner, match: {path: /partner}, to: orders, authenticate: {clientCertificate: {names: ["urn:partner:till", "mailto:till@partner.example", till@partner.example, till.partner.example], subjects: ["CN=till,O=Partner", 'CN=Till\, Inc.+UID=7']}, tenant: optional}}
  - {name: night, match: {path: /night}, to: orders, allow: "now.getHours() < 6"}
  - {name: pay, match: {method: POST, path: /pay}, to: orders, body: 64B, allow: "request.body.amount < 100 && request.headers['x-tier'] == ['gold'] && request.ip.startsWith('203.0.113.')"}
  - {name: open, match: {path: /open}, to: orders, authenticate: {anonymous: true}}
  - {name: rest, match: {path: /rest/**}, to: orders}
  - {name: any, match: {path: "/{service}/info"}, to: "{service}", authenticate: {anonymous: true}}
  - {name: admin, match: {path: /admin/info}, to: orders, allow: "'admins' in user.groups"}
---
kind: Service
name: orders
callers: [edge]
routes:
  - {name: order, match: {path: "/orders/{id}"}, allow: "passport.bound.order == params.id && user.id == 'alice' && 'sales' in user.groups && tenant == 'acme' && client.id == 'web' && caller.name == 'edge'"}
  - {name: till, match: {path: /till}, authenticate: {basic: tills}, allow: "user.provider == 'chancery:users/tills'"}
  - {name: key, match: {path: /key}, authenticate: {apiKey: true}, allow: "user.provider == 'chancery:api-keys'"}
  - {name: certificate, match: {path: /certificate}, authenticate: {clientCertificate: {}}, allow: "user.provider == 'chancery:certificates'"}
  - {name: token, match: {path: /token}, allow: "user.provider == 'staff'"}
  - {name: strong, match: {path: /strong}, authenticate: {accessToken: staff, idToken: staff, acr: [gold], maxAge: 10m}, allow: "true"}
---
kind: Service
name: other
`

// people of all tests.
const people = `
people:
  alice: {provider: staff, tenant: acme, client: web, groups: [sales], amr: [pwd, otp], acr: gold}
  bob: {provider: staff, tenant: acme, client: web, groups: [ops], amr: [pwd], loggedIn: 1h}
  pat: {provider: partners, tenant: acme, groups: [sales]}
  late: {provider: staff, tenant: acme, claims: {exp: 1}}
  nobody: {provider: staff}
  till: {basic: tills, tenant: acme}
  robot: {basic: robots, tenant: acme}
  some: {tenant: acme}
`

const edge = "kind: Test\nname: edge\ngateway: edge" + people + `
cases:
  - {name: "401 credential_missing rest", request: {path: /rest}, expect: deny, status: 401, reason: credential_missing, route: rest}
  - {name: "200 allowed rest", request: {path: /rest}, with: {accessToken: bob}, expect: allow}
  - {name: "401 token_expired rest", request: {path: /rest}, with: {accessToken: late}, expect: deny}
  - {name: "403 tenant_missing rest", request: {path: /rest}, with: {accessToken: nobody}, expect: deny}
  - {name: "401 token_malformed rest", request: {path: /rest}, with: {accessToken: pat}, expect: deny}
  - {name: "200 allowed critical", request: {path: /critical}, with: {accessToken: alice}, expect: allow}
  - {name: "403 policy_denied critical", request: {path: /critical}, with: {accessToken: bob}, expect: deny}
  - {name: "200 allowed opaque", request: {path: /opaque}, with: {accessToken: pat}, expect: allow}
  - {name: "200 allowed both", request: {path: /both}, with: {accessToken: alice, idToken: alice}, expect: allow}
  - {name: "401 login_too_weak both", request: {path: /both}, with: {accessToken: bob, idToken: bob}, expect: deny}
  - {name: "401 credentials_mismatch both", request: {path: /both}, with: {accessToken: alice, idToken: bob}, expect: deny}
  - {name: "200 allowed key", request: {path: /key}, with: {apiKey: "0123456789"}, expect: allow}
  - {name: "401 credential_unsupported rest", request: {path: /rest}, with: {apiKey: "0123456789"}, expect: deny}
  - {name: "200 allowed basic", request: {path: /basic}, with: {basic: till-7}, expect: allow}
  - {name: "401 user_disabled basic", request: {path: /basic}, with: {basic: till-8}, expect: deny}
  - {name: "200 allowed certificate", request: {path: /certificate}, with: {clientCertificate: {names: ["spiffe://partner.example/till", till.example, till@partner.example]}}, expect: allow}
  - {name: "200 allowed certificate", request: {path: /certificate}, with: {clientCertificate: {subject: Till}}, expect: allow}
  - {name: "401 certificate_name_mismatch certificate", request: {path: /certificate}, with: {clientCertificate: {subject: Other}}, expect: deny}
  - {name: "200 allowed partner", request: {path: /partner}, with: {clientCertificate: {names: ["urn:partner:till"]}}, expect: allow}
  - {name: "200 allowed partner", request: {path: /partner}, with: {clientCertificate: {names: ["mailto:till@partner.example"]}}, expect: allow}
  - {name: "200 allowed partner", request: {path: /partner}, with: {clientCertificate: {names: [till@partner.example]}}, expect: allow}
  - {name: "200 allowed partner", request: {path: /partner}, with: {clientCertificate: {names: [till.partner.example]}}, expect: allow}
  - {name: "401 certificate_name_mismatch partner", request: {path: /partner}, with: {clientCertificate: {names: ["URN:partner:till"]}}, expect: deny}
  - {name: "200 allowed partner", request: {path: /partner}, with: {clientCertificate: {subject: "CN=till,O=Partner"}}, expect: allow}
  - {name: "200 allowed partner", request: {path: /partner}, with: {clientCertificate: {subject: 'uid=7 + cn=Till\, Inc.'}}, expect: allow}
  - {name: "401 certificate_name_mismatch partner", request: {path: /partner}, with: {clientCertificate: {subject: "O=Partner,CN=till"}}, expect: deny}
  - {name: "401 certificate_name_mismatch partner", request: {path: /partner}, with: {clientCertificate: {subject: till}}, expect: deny}
  - {name: "200 allowed night", request: {path: /night}, with: {accessToken: bob}, at: "2026-11-03T05:59:00Z", expect: allow}
  - {name: "403 policy_denied night", request: {path: /night}, with: {accessToken: bob}, at: "2036-11-03T06:01:00Z", expect: deny}
  - {name: "200 allowed pay", request: {method: POST, path: /pay, ip: 203.0.113.9, headers: ["X-Tier: gold"], body: {amount: 99}}, with: {accessToken: bob}, expect: allow}
  - {name: "403 policy_denied pay", request: {method: POST, path: /pay, ip: 203.0.113.9, headers: ["X-Tier: gold"], body: {amount: 100}}, with: {accessToken: bob}, expect: deny}
  - {name: "413 body_truncated pay", request: {method: POST, path: /pay, body: {amount: 99, filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}}, with: {accessToken: bob}, expect: deny}
  - {name: "200 allowed open", request: {path: /open}, expect: allow}
  - {name: "200 allowed any", request: {path: /orders/info}, expect: allow}
  - {name: "403 policy_denied admin", request: {path: /admin/info}, with: {accessToken: alice}, expect: deny}
  - {name: "403 route_mismatch", request: {path: /other/info}, with: {accessToken: alice}, expect: deny}
  - {name: "403 route_mismatch", request: {path: /elsewhere}, with: {accessToken: alice}, expect: deny}
  - {name: "400 path_ambiguous", request: {path: /rest/../open}, with: {accessToken: alice}, expect: deny}
`

const beside = "kind: Test\nname: beside\nservice: orders" + people + `
cases:
  - {name: "200 allowed order", request: {path: /orders/7}, caller: edge, with: {passport: alice, bound: {order: "7"}}, expect: allow}
  - {name: "403 policy_denied order", request: {path: /orders/7}, caller: edge, with: {passport: alice, bound: {order: "8"}}, expect: deny}
  - {name: "403 caller_not_allowed order", request: {path: /orders/7}, caller: other, with: {passport: alice}, expect: deny}
  - {name: "403 caller_not_allowed order", request: {path: /orders/7}, with: {passport: alice}, expect: deny}
  - {name: "401 passport_missing order", request: {path: /orders/7}, caller: edge, expect: deny}
  - {name: "401 passport_credentials_missing strong", request: {path: /strong}, caller: edge, with: {passport: alice}, expect: deny}
  - {name: "200 allowed strong", request: {path: /strong}, caller: edge, with: {passport: alice, shown: [access_token, id_token]}, expect: allow}
  - {name: "200 allowed strong", request: {path: /strong}, caller: edge, with: {passport: alice, shown: [access_token, id_token]}, at: "2020-11-03T05:59:00Z", expect: allow}
  - {name: "200 allowed till", request: {path: /till}, caller: edge, with: {passport: till, shown: [basic]}, expect: allow}
  - {name: "200 allowed till", request: {path: /till}, caller: edge, with: {passport: till, shown: [basic, api_key]}, expect: allow}
  - {name: "401 passport_provider_not_accepted till", request: {path: /till}, caller: edge, with: {passport: robot, shown: [basic]}, expect: deny}
  - {name: "401 passport_credentials_missing till", request: {path: /till}, caller: edge, with: {passport: some, shown: [api_key]}, expect: deny}
  - {name: "200 allowed key", request: {path: /key}, caller: edge, with: {passport: alice, shown: [api_key]}, expect: allow}
  - {name: "403 policy_denied key", request: {path: /key}, caller: edge, with: {passport: alice, shown: [access_token, api_key]}, expect: deny}
  - {name: "200 allowed certificate", request: {path: /certificate}, caller: edge, with: {passport: some, shown: [client_certificate]}, expect: allow}
  - {name: "403 policy_denied certificate", request: {path: /certificate}, caller: edge, with: {passport: some, shown: [client_certificate, api_key]}, expect: deny}
  - {name: "403 policy_denied token", request: {path: /token}, caller: edge, with: {passport: some}, expect: deny}
  - {name: "200 allowed token", request: {path: /token}, caller: edge, with: {passport: alice}, expect: allow}
  - {name: "401 login_too_weak strong", request: {path: /strong}, caller: edge, with: {passport: bob, shown: [access_token, id_token]}, expect: deny}
`

// try makes the requests of a test.
func try(t *testing.T, text string) []trial.Verdict {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"mesh.yaml": documents, "a.test.yaml": text} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read, err := mesh.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := read.Compile(extauthz.DocumentOptions())
	if err != nil {
		t.Fatal(err)
	}
	if read, err = mesh.ReadTests(dir); err != nil {
		t.Fatal(err)
	}
	tests, err := read.CompileTests(m, extauthz.DocumentOptions())
	if err != nil {
		t.Fatal(err)
	}
	court, err := trial.New(m)
	if err != nil {
		t.Fatal(err)
	}
	var all []trial.Verdict
	for _, test := range tests {
		verdicts, err := court.Try(t.Context(), test)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, verdicts...)
	}
	return all
}

// Each case is named after how it ends.
func TestTry(t *testing.T) {
	t.Parallel()
	for _, v := range try(t, edge+"---\n"+beside) {
		route, _, _ := strings.Cut(v.Record.Route, " ")
		if got := strings.TrimSpace(fmt.Sprintf("%d %s %s", v.Record.Status, v.Record.Reason, route)); got != v.Case.Name || len(v.Faults) > 0 {
			t.Errorf("%s: %s %s: %q, want %q; faults %v, cause %v", v.Case.Position, v.Test.Name, v.Case.Request.Target, got, v.Case.Name, v.Faults, v.Record.Cause)
		}
	}
}

// What differs is told, each thing by itself.
func TestFaults(t *testing.T) {
	t.Parallel()
	verdicts := try(t, "kind: Test\nname: edge\ngateway: edge"+people+`
cases:
  - {name: a, request: {path: /rest}, expect: allow}
  - {name: b, request: {path: /rest}, with: {accessToken: bob}, expect: deny, status: 403, reason: policy_denied, route: other}
  - {name: c, request: {path: /rest}, expect: deny, status: 403}
  - {name: d, request: {path: /rest}, expect: deny, status: 401, reason: credential_missing, route: rest}
`)
	want := []string{
		"[decision is deny, want allow]",
		"[decision is allow, want deny status is 200, want 403 reason is allowed, want policy_denied route is rest, want other]",
		"[status is 401, want 403]",
		"[]",
	}
	for i, v := range verdicts {
		if got := fmt.Sprint(v.Faults); got != want[i] {
			t.Errorf("case %s: %s, want %s", v.Case.Name, got, want[i])
		}
	}
}

// compile reads documents.
func compile(t *testing.T, text string) *mesh.Mesh {
	t.Helper()
	m, err := mesh.Parse("mesh.yaml", []byte(text)).Compile(extauthz.DocumentOptions())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Documents that no agent has decide with the keys that there are.
func TestDocumentsExplain(t *testing.T) {
	t.Parallel()
	idp := idptest.NewFake(t)
	m := compile(t, strings.NewReplacer("issuer: https://idp.shop.example\n", "issuer: "+idp.URL+"\nallowHTTP: true\nallowPrivate: true\n",
		"claims: {user: /profile/name, groups: /realm_access/groups, tenant: org, client: azp}", "claims: {groups: groups, tenant: tenant}").Replace(documents))
	token := idp.Sign(t, nil, map[string]any{"iss": idp.URL, "aud": "shop-api", "sub": "alice", "tenant": "acme", "exp": time.Now().Add(time.Minute).Unix()})
	h := &extauthz.Hypothesis{Method: "GET", Target: "/rest", IP: "192.0.2.1", Headers: []extauthz.HypotheticalHeader{{Name: "authorization", Value: "Bearer " + token}}}
	d := trial.Documents{Mesh: m, Gateway: "edge"}
	r, err := d.Explain(t.Context(), h)
	if err != nil || r.Reason != "allowed" {
		t.Errorf("decided %+v, %v", r, err)
	}
	idp.Answer(idptest.Discovery, http.NotFound)
	if r, err := d.Explain(t.Context(), h); err != nil || r.Reason != "no_keys" {
		t.Errorf("without keys: %+v, %v", r, err)
	}
	h.Introspect = true
	if _, err := d.Explain(t.Context(), h); err == nil {
		t.Error("asked the provider with no secret")
	}
	if _, err := (&trial.Documents{Mesh: m, Gateway: "orders"}).Explain(t.Context(), &extauthz.Hypothesis{}); err == nil {
		t.Error("a service is no gateway")
	}
}

func TestDocumentsExplainServices(t *testing.T) {
	t.Parallel()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := passport.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	const edge = "spiffe://shop.example/gateway/edge"
	token, err := signer.Mint(&passport.Passport{
		ID: "t", Subject: "alice", Audience: "shop.example", Gateway: edge, IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute),
		Provider: "staff", Tenant: "acme", Groups: []string{"sales"}, Client: "web", Bound: map[string]string{"order": "7"}, Authn: "access_token",
	})
	if err != nil {
		t.Fatal(err)
	}
	d := trial.Documents{Mesh: compile(t, documents), Service: "orders", PassportKeys: passport.KeySet{
		signer.KeyID(): {Owner: edge, Public: signer.Public(), Providers: []string{"staff"}},
	}}
	h := &extauthz.Hypothesis{
		Method: "GET", Target: "/orders/7", Caller: "gateway/edge", Headers: []extauthz.HypotheticalHeader{{Name: "txn-token", Value: token}},
	}
	if r, err := d.Explain(t.Context(), h); err != nil || r.Reason != "allowed" {
		t.Errorf("decided %+v, %v", r, err)
	}
	d.PassportKeys = nil
	if r, err := d.Explain(t.Context(), h); err != nil || r.Reason != "no_keys" {
		t.Errorf("without keys: %+v, %v", r, err)
	}
}
