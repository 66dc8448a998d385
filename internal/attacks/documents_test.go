package attacks_test

import (
	"strings"
	"testing"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/mesh"
)

// The gateways edge (TLS) and plain (in the clear) have the same routes to one
// service.
const documents = `
kind: Mesh
name: shop
trustDomain: api.test
---
kind: IdentityProvider
name: idp1
issuer: https://idp1.test
audiences: [svc-a]
claims: {tenant: tenant}
tenants: [acme]
idToken: {audiences: [web]}
---
kind: IdentityProvider
name: idp2
issuer: https://idp2.test
audiences: [svc-b]
claims: {tenant: tenant}
---
kind: Client
name: web
owner: ops
apis: [shop]
---
kind: APIKey
name: KEYID
client: web
owner: robot
tenant: acme
hash: KEYHASH
---
kind: Users
name: people
users: [{name: alice, tenant: acme, password: "PASSWORDHASH"}]
---
kind: Roles
name: roles
roles: [{name: admin, groups: [admins]}]
---
kind: Gateway
name: edge
profile: private
listen: 127.0.0.1:8443
tls: {certificates: [edge], clientCertificates: {trust: clients, required: false}}
ROUTES
---
kind: Gateway
name: plain
profile: private
listen: 127.0.0.1:8080
tls: {mode: off}
ROUTES
---
kind: Service
name: shop
callers: [edge, plain]
routes:
  - {name: all, match: {path: /**}, allow: "true"}
`

const gatewayRoutes = `
authenticate: {accessToken: idp1}
peerLimit: {requests: 1000000, burst: 1000000}
routes:
  - {name: public, match: {path: /public/**}, to: shop, authenticate: {anonymous: true}}
  - {name: any, match: {path: /open-any/**}, to: shop, authenticate: {anyOf: [{accessToken: idp1}, {apiKey: true}, {basic: people}]}}
  - {name: admin, match: {path: /admin/**}, to: shop, allow: "'admin' in user.roles"}
  - {name: adm, match: {path: /adm}, to: shop}
  - {name: svc-a, match: {path: /svc-a/**}, to: shop}
  - {name: svc-b, match: {path: /svc-b/**}, to: shop, authenticate: {accessToken: idp2}}
  - {name: both, match: {path: /both/**}, to: shop, authenticate: {accessToken: idp1, idToken: idp1}}
  - {name: basic, match: {path: /basic/**}, to: shop, authenticate: {basic: people}}
  - {name: key, match: {path: /key/**}, to: shop, authenticate: {apiKey: true}}
  - {name: upload, match: {method: POST, path: /upload/**}, to: shop, body: 64KiB, allow: request.body.amount < 100}
  - {name: inside, match: {path: /inside/**}, to: shop, allow: "cidr('10.0.0.0/8').containsIP(request.ip)"}
  - {name: role, match: {path: /role/**}, to: shop, allow: "!('admin' in request.headers['x-role'])"}
  - {name: host, match: {path: /host/**}, to: shop, allow: "request.host == 'api.test'"}
  - {name: no-host, match: {path: /no-host/**}, to: shop, allow: "request.host != 'internal.test'"}
  - {name: files, match: {path: /files/**}, to: shop, allow: "!(request.path.startsWith('/files/@private') || request.path.startsWith('/files/a:b+c'))"}
  - {name: at, match: {path: "/@home/**"}, to: shop, allow: "'admin' in user.roles"}
  - {name: read, match: {method: GET, path: /read/**}, to: shop}
  - {name: read-admin, match: {method: GET, path: /records/**}, to: shop, allow: "'admin' in user.roles"}
  - {name: records, match: {path: /records/**}, to: shop}
  - {name: dot, match: {path: "/v1.0/{id}"}, to: shop}
  - {name: method, match: {path: /method/**}, to: shop, allow: request.method == 'GET'}
`

// fixture is everything secret that clients have.
type fixture struct {
	*mesh.Mesh
	apiKey, password string
}

func compile(t *testing.T) fixture {
	t.Helper()
	id, key := credential.GenerateAPIKey()
	password := "correct horse battery staple"
	hash, err := credential.HashPassword(password)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("ROUTES", gatewayRoutes, "KEYID", id, "KEYHASH", credential.HashAPIKey(key), "PASSWORDHASH", hash).Replace(documents)
	m, err := mesh.Parse("attacks.yaml", []byte(text)).Compile(extauthz.DocumentOptions())
	if err != nil {
		t.Fatal(err)
	}
	return fixture{m, key, password}
}
