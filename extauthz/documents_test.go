package extauthz_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/mesh"
)

// Faults of conditions are told where they stand in the document, however YAML
// has it; as near as can be where that says it otherwise.
func TestFaultsOfConditionsStandWhereTheyAre(t *testing.T) {
	t.Parallel()
	documents := `kind: Mesh
name: shop
trustDomain: shop.example
---
kind: IdentityProvider
name: staff
issuer: https://idp.shop.example
audiences: [shop-api]
---
kind: Data
name: limits
values: {amount: 1}
---
kind: Gateway
name: public
profile: private
listen: 127.0.0.1:8443
authenticate: {accessToken: staff}
data: [limits]
routes:
  - match: {path: "/a/{id}"}
    to: orders
    allow: user.id == param.id
  - match: {path: "/b/{id}"}
    to: orders
    allow: "request.method == 'GET' && params.no == 'x'"
  - match: {path: /c}
    to: orders
    allow: |
      user.id == 'a' &&
        (tenant == 'b' ||
          data.limit.amount > 1) &&
        caller.name == 'web'
    body: 1KiB
    bind: {a: params.id, b: "passport.bound.a", c: 'string(size(user.groups))', d: user.groups, order: "string(request.body.id)"}
  - match: {path: /d}
    to: orders
    allow: >
      user.id == 'a' &&
      request.body.x == 1
    bind:
      amount: |
        string(
          request.body.amount)
---
kind: Service
name: orders
callers: [public]
routes:
  - match: {path: /a}
    allow: 'passport.bound.order == ''1'' && client.plan == ''gold'''
  - match: {path: /b}
    body: 1KiB
    allow: |-
      # a comment is no CEL
      true
  - match: {path: /c}
    allow: |
      // this is one
      request.body.x == 1
`
	_, err := mesh.Parse("a.yaml", []byte(documents)).Compile(extauthz.DocumentOptions())
	if err == nil {
		t.Fatal("no fault")
	}
	want := `a.yaml:23:23: routes[0].allow: undeclared reference to 'param' (did you mean 'params'?)
a.yaml:26:40: routes[1].allow: {no} is not in match.path: write it there
a.yaml:32:11: routes[2].allow: data set "limit" is not listed: add it to data in the document
a.yaml:33:9: routes[2].allow: there is no caller at a gateway, only in services: a client that has a certificate is user.id
a.yaml:35:15: routes[2].bind.a: {id} is not in match.path: write it there
a.yaml:35:30: routes[2].bind.b: there is no Passport yet at a gateway, which makes it: decide by it in services
a.yaml:35:84: routes[2].bind.d: must be a text, but is of type list(string)
a.yaml:38:12: routes[3].allow: there is no body: write up to which size it is shown, such as body: 64KiB, in the route
a.yaml:44:11: routes[3].bind.amount: there is no body: write up to which size it is shown, such as body: 64KiB, in the route
a.yaml:51:12: routes[0].allow: client.plan is known at gateways alone: decide by it there
a.yaml:55:7: routes[1].allow: Syntax error: token recognition error at: '#'
a.yaml:55:11: routes[1].allow: Syntax error: mismatched input 'comment' expecting <EOF>
a.yaml:60:7: routes[2].allow: there is no body: write up to which size it is shown, such as body: 64KiB, in the route`
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(err.Error(), "\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
