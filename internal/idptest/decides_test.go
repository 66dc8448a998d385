package idptest_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/introspection"
	"github.com/chancery-mesh/chancery/extauthz/provider"
	"github.com/chancery-mesh/chancery/extauthz/standalone"
	"github.com/chancery-mesh/chancery/internal/idptest"
)

// documents are those of a gateway whose routes each want something else of one
// provider.
const documents = `
kind: Mesh
name: shop
trustDomain: shop.example
---
kind: IdentityProvider
name: staff
issuer: ISSUER
allowHTTP: true
allowPrivate: true
audiences: [shop-api]
claims: {groups: groups, tenant: tenant}
idToken: {audiences: [shop-web]}
introspection: {client: shop-api, secret: shop-api, cache: 0s}
---
kind: IdentityProvider
name: opaque
issuer: ISSUER
allowHTTP: true
allowPrivate: true
audiences: [shop-api]
claims: {groups: groups, tenant: tenant}
tokens: opaque
introspection: {client: shop-api, secret: shop-api, cache: 0s}
---
kind: Service
name: orders
---
kind: Gateway
name: public
listen: 127.0.0.1:8443
tls: {mode: off}
authenticate: {accessToken: staff}
routes:
  - match: {path: /access}
    to: orders
    allow: "'sales' in user.groups && tenant == 'acme' && client.id == 'shop-web' && 'orders:read' in user.scopes"
  - match: {path: /both}
    to: orders
    authenticate: {accessToken: staff, idToken: staff}
  - match: {path: /opaque}
    to: orders
    authenticate: {accessToken: opaque}
    allow: "'sales' in user.groups && 'orders:read' in user.scopes"
  - match: {path: /critical}
    to: orders
    authenticate: {accessToken: staff, introspect: true}
`

// decides checks what a decision point makes of documents and the provider's
// tokens.
func decides(t *testing.T, idp idptest.Provider, can abilities) {
	t.Helper()
	status := startPDP(t, idp)
	want := func(code int, what, path, access, id string) {
		t.Helper()
		if got := status(path, access, id); got != code {
			t.Errorf("%s: %d, want %d", what, got, code)
		}
	}
	tokens, other := idp.Login(t, idptest.User, idptest.JWT), idp.Login(t, idptest.User, idptest.JWT)
	opaque := idp.Login(t, idptest.User, idptest.Opaque)
	for deadline := time.Now().Add(30 * time.Second); status("/access", tokens.Access, "") != 200; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no token is accepted within 30s")
		}
	}
	want(401, "nothing", "/access", "", "")
	want(401, "an ID token for an access token", "/access", tokens.ID, "")
	want(401, "the last letters changed", "/access", tokens.Access[:len(tokens.Access)-8]+"AAAAAAAA", "")
	want(200, "both tokens", "/both", tokens.Access, tokens.ID)
	want(401, "one of two", "/both", tokens.Access, "")
	if can&bindsTokens != 0 {
		want(401, "tokens of two logins", "/both", tokens.Access, other.ID)
	}
	want(200, "an opaque token", "/opaque", opaque.Access, "")
	want(401, "an unknown opaque token", "/opaque", opaque.Access+"x", "")

	resume := idp.Hang(t)
	want(200, "a JWT while the provider hangs", "/access", tokens.Access, "")
	want(503, "an opaque token while the provider hangs", "/opaque", opaque.Access, "")
	want(503, "a critical route while the provider hangs", "/critical", tokens.Access, "")
	resume()

	critical := 503 // a provider that cannot say
	if can&introspectsJWTs != 0 {
		critical = 200
	}
	want(critical, "a critical route", "/critical", tokens.Access, "")
	idp.Revoke(t, opaque.Access)
	want(401, "an opaque token that was revoked", "/opaque", opaque.Access, "")
	if can&introspectsJWTs != 0 {
		idp.Revoke(t, tokens.Access)
		want(401, "a JWT that was revoked, on a critical route", "/critical", tokens.Access, "")
		want(200, "elsewhere it is good until it ends", "/access", tokens.Access, "")
	}
}

// startPDP runs a decision point until the test ends, and returns what it
// answers to a path with two tokens.
func startPDP(t *testing.T, idp idptest.Provider) func(path, access, id string) int {
	t.Helper()
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	text := strings.ReplaceAll(documents, "ISSUER", idp.Document().Issuer)
	for name, text := range map[string]string{"mesh.yaml": text, "shop-api.secret": idptest.Secret(idptest.APIClient) + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	asks, err := introspection.New(introspection.Config{Secret: introspection.Secrets(dir)})
	if err != nil {
		t.Fatal(err)
	}
	server, err := extauthz.New(extauthz.Config{Logger: log, Introspector: asks})
	if err != nil {
		t.Fatal(err)
	}
	pdp, err := standalone.New(standalone.Config{Documents: dir, Server: server, Logger: log, Providers: provider.Config{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- pdp.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return func(path, access, id string) int {
		t.Helper()
		headers := map[string]string{}
		if access != "" {
			headers["authorization"] = "Bearer " + access
		}
		if id != "" {
			headers["x-id-token"] = id
		}
		response, err := server.Check(t.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
			Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
				Method: "GET", Path: path, Headers: headers,
			}},
		}})
		switch {
		case err != nil:
			t.Error(err)
		case response.GetOkResponse() != nil:
			return 200
		}
		return int(response.GetDeniedResponse().GetStatus().GetCode())
	}
}
