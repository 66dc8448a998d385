package extauthz_test

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/introspection"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/idptest"
	"github.com/chancery-mesh/chancery/passport"
)

// asking is a gateway whose provider is asked: about every token if opaque, or
// about JWTs on its route "orders".
func asking(t *testing.T, opaque bool) (*fixture, *idptest.Fake, *extauthz.Server) {
	t.Helper()
	f, idp := newFixture(t), idptest.NewFake(t)
	f.provider.Opaque = opaque
	f.provider.Introspection = &chancerypb.Introspection{
		Endpoint: idp.URL + idptest.Introspection, Client: idptest.APIClient, Secret: "api",
		Cache: durationpb.New(0), Rate: 1000, AllowPrivate: true,
	}
	if opaque {
		f.provider.Jwks, f.provider.Issuer = nil, idp.URL
	}
	routes := f.gateway.GetRoutes()
	routes[0].Authentication.Introspect = true
	f.gateway.Routes = append(routes,
		&chancerypb.RoutePolicy{Name: "read", Path: "/read/**", Authentication: token("staff"), Allow: "'read' in user.scopes"},
		&chancerypb.RoutePolicy{Name: "write", Path: "/write/**", Authentication: token("staff"), Allow: "'write' in user.scopes"},
	)
	i, err := introspection.New(introspection.Config{Secret: func(string) (string, error) { return idptest.Secret(idptest.APIClient), nil }})
	if err != nil {
		t.Fatal(err)
	}
	s, err := extauthz.New(extauthz.Config{
		Logger: slog.New(slog.DiscardHandler), Signer: func() *passport.Signer { return f.signer }, Introspector: i,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.SetState(f.gatewayState(t))
	return f, idp, s
}

// on returns the call with a token on another route.
func (c call) on(route, path, token string) call {
	c.route, c.path = route, path
	return c.authorization("Bearer " + token)
}

func TestOpaqueTokens(t *testing.T) {
	t.Parallel()
	f, idp, s := asking(t, true)
	f.provider.Introspection.Cache = durationpb.New(30e9)
	s.SetState(f.gatewayState(t))
	c := f.atGateway(t)
	idp.Activate("opaque-1", map[string]any{
		"sub": "alice", "aud": "shop-api", "tenant": "acme", "client_id": "web", "groups": []string{"sales"}, "scope": "read",
	})
	// Row K10 of the attack catalogue: scopes are checked on each hit.
	for range 2 {
		if _, o := check(t, s, c.on("read", "/read/1", "opaque-1").request()); o.status != 200 {
			t.Errorf("with the scope: %+v", o)
		}
		if _, o := check(t, s, c.on("write", "/write/1", "opaque-1").request()); o.status != 403 || o.reason != "policy_denied" {
			t.Errorf("without it: %+v", o)
		}
	}
	if n := idp.Asked(idptest.Introspection); n != 1 {
		t.Errorf("asked %d times", n)
	}
	if _, o := check(t, s, c.on("read", "/read/1", "opaque-2").request()); o.status != 401 || o.reason != "token_inactive" {
		t.Errorf("an unknown token: %+v", o)
	}
	// The whole identity goes into the Passport.
	response, _ := check(t, s, c.on("read", "/read/1", "opaque-1").request())
	if got := response.GetDynamicMetadata().AsMap(); got["user"] != "alice" || got["tenant"] != "acme" || got["client"] != "web" {
		t.Errorf("metadata %v", got)
	}
	if _, o := check(t, s, c.request()); o.status != 401 {
		t.Errorf("a JWT of the same provider: %+v", o)
	}
}

// A provider that cannot be asked denies, under a reason of its own.
func TestProviderThatCannotBeAsked(t *testing.T) {
	t.Parallel()
	f, idp, s := asking(t, true)
	idp.Activate("opaque-1", map[string]any{"sub": "alice", "aud": "shop-api", "tenant": "acme"})
	idp.Answer(idptest.Introspection, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	c := f.atGateway(t).authorization("Bearer opaque-1")
	if _, o := check(t, s, c.request()); o.status != 503 || o.reason != "introspection_unavailable" || o.challenge != "" {
		t.Errorf("down: %+v", o)
	}
	nobody := f.server(t, f.gatewayState(t))
	if _, o := check(t, nobody, c.request()); o.status != 503 || o.reason != "introspection_unavailable" {
		t.Errorf("a decision point that can ask nobody: %+v", o)
	}
	f.provider.Introspection.Endpoint = ""
	s.SetState(f.gatewayState(t))
	if _, o := check(t, s, c.request()); o.status != 503 || o.reason != "introspection_unavailable" {
		t.Errorf("an endpoint that is not known: %+v", o)
	}
}

// On critical routes JWTs must be good and still be known to their provider.
func TestCriticalRoutes(t *testing.T) {
	t.Parallel()
	f, _, s := asking(t, false)
	signed := f.token(t, nil)
	c := f.atGateway(t).authorization("Bearer " + signed)
	known := map[string]any{
		"iss": "https://idp.test", "sub": "alice", "aud": "shop-api", "tenant": "acme", "client_id": "web", "groups": []string{"admins"},
	}
	if _, o := check(t, s, c.request()); o.status != 401 || o.reason != "token_inactive" {
		t.Errorf("revoked: %+v", o)
	}
	_, idp, s := asking(t, false) // what is not known is remembered for a while
	idp.Activate(signed, known)
	response, o := check(t, s, c.request())
	if o.status != 200 || idp.Asked(idptest.Introspection) != 1 {
		t.Errorf("known: %+v, asked %d times", o, idp.Asked(idptest.Introspection))
	}
	for _, h := range response.GetOkResponse().GetHeaders() {
		if strings.Contains(h.GetHeader().String(), "admins") {
			t.Error("the answer gives what the token does not")
		}
	}
	for claim, other := range map[string]string{"sub": "bob", "client_id": "other"} {
		_, idp, s := asking(t, false)
		idp.Activate(signed, known)
		idp.Activate(signed, map[string]any{
			"iss": "https://idp.test", "aud": "shop-api", "sub": "alice", "client_id": "web", "tenant": "acme", claim: other,
		})
		if _, o := check(t, s, c.request()); o.status != 401 || o.reason != "credentials_mismatch" {
			t.Errorf("another %s: %+v", claim, o)
		}
	}
	// A bad signature asks nobody.
	asked := idp.Asked(idptest.Introspection)
	forged := signed[:len(signed)-8] + "AAAAAAAA"
	idp.Activate(forged, known)
	if _, o := check(t, s, c.authorization("Bearer "+forged).request()); o.status != 401 || idp.Asked(idptest.Introspection) != asked {
		t.Errorf("forged: %+v", o)
	}
	// Other routes ask nobody either.
	for range 3 {
		if _, o := check(t, s, c.on("read", "/read/1", f.token(t, map[string]any{"scope": "read"})).request()); o.status != 200 {
			t.Errorf("another route: %+v", o)
		}
	}
	if idp.Asked(idptest.Introspection) != asked {
		t.Error("the provider is asked about tokens that say it all themselves")
	}
}
