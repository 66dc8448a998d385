package extauthz_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/json"
	"log/slog"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/revocation"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/passport"
)

const (
	domain        = "shop.example"
	gatewayID     = "spiffe://shop.example/gateway/public"
	serviceCaller = "spiffe://shop.example/service/web"
)

// fixture is a gateway and the service behind it.
type fixture struct {
	idp      *ecdsa.PrivateKey
	signer   *passport.Signer
	gateway  *chancerypb.Policy
	provider *chancerypb.Provider
	service  *chancerypb.Policy
	keys     *chancerypb.PassportKeys
	accounts []*chancerypb.Accounts
	trust    *trust
	revoked  *revocation.Index
}

// secrets are always the same: processes that fuzz together must agree.
var secrets = sync.OnceValues(func() (*ecdsa.PrivateKey, *passport.Signer) {
	idp, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{1}, 32))
	if err != nil {
		panic(err)
	}
	signer, err := passport.NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, ed25519.SeedSize)))
	if err != nil {
		panic(err)
	}
	return idp, signer
})

func newFixture(t testing.TB) *fixture {
	t.Helper()
	idp, signer := secrets()
	f := &fixture{
		idp: idp, signer: signer,
		provider: &chancerypb.Provider{
			Name: "staff", Issuer: "https://idp.test", Audiences: []string{"shop-api"}, Jwks: publicKeys(t, idp),
			Claims:      &chancerypb.ClaimMapping{Tenant: "tenant"},
			UsableUntil: timestamppb.New(time.Now().Add(time.Hour)),
		},
		gateway: &chancerypb.Policy{
			Name: "gateway/public", TrustDomain: domain, Providers: named("staff"),
			Minting: &chancerypb.Minting{Lifetime: durationpb.New(time.Minute)},
			Routes: []*chancerypb.RoutePolicy{
				{Name: "orders", Path: "/orders/**", Authentication: token("staff")},
				{
					Name: "admin", Method: "POST", Path: "/admin/{id}", Authentication: token("staff"),
					Allow: `'admins' in user.groups && params.id != '0' && !('admin' in request.headers['x-role'])`,
				},
				{Name: "closed", Path: "/closed"},
			},
		},
		service: &chancerypb.Policy{
			Name: "service/orders", TrustDomain: domain, Gateways: []string{"public"},
			Routes: []*chancerypb.RoutePolicy{
				{
					Name: "get-order", Method: "GET", Path: "/orders/{id}", Callers: []string{gatewayID, serviceCaller},
					Allow: `'sales' in user.groups && tenant == 'acme' && caller.name in ['public', 'web'] && request.ip == '192.0.2.1'`,
				},
				{Name: "nobody", Path: "/nobody", Allow: "true"},
			},
		},
		keys:     &chancerypb.PassportKeys{Gateway: "public", SpiffeId: gatewayID},
		accounts: []*chancerypb.Accounts{{Of: &chancerypb.Accounts_Clients{Clients: &chancerypb.Clients{}}}},
		trust:    &trust{authorities: []string{authorityID}},
		revoked:  &revocation.Index{},
	}
	f.keys.Jwks = f.passportKeys(t, "staff")
	return f
}

// passportKeys returns the gateway's keys, for users that some vouch for.
func (f *fixture) passportKeys(t testing.TB, providers ...string) []byte {
	t.Helper()
	keys, err := json.Marshal(passport.KeySet{f.signer.KeyID(): {
		Owner: gatewayID, Public: f.signer.Public(), Until: time.Now().Add(time.Hour), Providers: providers,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// token demands an access token of a provider.
func token(provider string) *chancerypb.Authentication {
	return &chancerypb.Authentication{AnyOf: []*chancerypb.Credentials{{AccessToken: provider}}}
}

// named returns providers that nothing is known of but their names.
func named(names ...string) (list []*chancerypb.Provider) {
	for _, name := range names {
		list = append(list, &chancerypb.Provider{Name: name})
	}
	return list
}

// described returns a policy that says of its providers what list does.
func described(p *chancerypb.Policy, list ...*chancerypb.Provider) *chancerypb.Policy {
	p = proto.CloneOf(p)
	for i, provider := range p.GetProviders() {
		for _, known := range list {
			if known.GetName() == provider.GetName() {
				p.Providers[i] = known
			}
		}
	}
	return p
}

// newState compiles a policy and applies it with keys, whose providers are as the
// documents say.
func newState(p *chancerypb.Policy, k extauthz.Keys) (*extauthz.State, error) {
	rules, err := extauthz.Compile(described(p, k.Providers...))
	if err != nil {
		return nil, err
	}
	return rules.With(k)
}

func (f *fixture) keysOf() extauthz.Keys {
	return extauthz.Keys{
		Providers: []*chancerypb.Provider{f.provider}, Accounts: f.accounts, Passports: []*chancerypb.PassportKeys{f.keys}, Trust: f.trust,
		Revocations: f.revoked,
	}
}

func (f *fixture) gatewayState(t testing.TB) *extauthz.State {
	t.Helper()
	s, err := newState(f.gateway, f.keysOf())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (f *fixture) serviceState(t testing.TB) *extauthz.State {
	t.Helper()
	s, err := newState(f.service, f.keysOf())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// server returns one that has the state.
func (f *fixture) server(t testing.TB, state *extauthz.State) *extauthz.Server {
	t.Helper()
	s, err := extauthz.New(extauthz.Config{
		Logger: slog.New(slog.DiscardHandler), Signer: func() *passport.Signer { return f.signer },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.SetState(state)
	return s
}

// token returns an access token, with the claims that are given changed.
func (f *fixture) token(t testing.TB, change map[string]any) string {
	t.Helper()
	claims := jwt.MapClaims{
		"iss": "https://idp.test", "aud": "shop-api", "sub": "alice", "exp": time.Now().Add(10 * time.Minute).Unix(),
		"groups": []string{"sales"}, "tenant": "acme", "client_id": "web",
	}
	for name, v := range change {
		if claims[name] = v; v == nil {
			delete(claims, name)
		}
	}
	token := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	token.Header["kid"] = "k1"
	signed, err := token.SignedString(f.idp)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// passport returns a valid one, changed.
func (f *fixture) passport(t testing.TB, change func(*passport.Passport)) string {
	t.Helper()
	p := &passport.Passport{
		ID: "req-1", Subject: "alice", Audience: domain, Gateway: gatewayID, IssuedAt: time.Now(),
		ExpiresAt: time.Now().Add(5 * time.Minute), Provider: "staff", Tenant: "acme", Groups: []string{"sales"}, Client: "web", ClientIP: "192.0.2.1",
	}
	change(p)
	token, err := f.signer.Mint(p)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func unchanged(*passport.Passport) {}

// call is the part of a check request that tests change.
type call struct {
	policy, route, method, path string
	caller, certificate, ip     string
	headers                     [][2]string
	merged                      map[string]string
}

func (c call) request() *authv3.CheckRequest {
	var headers []*corev3.HeaderValue
	for _, h := range c.headers {
		headers = append(headers, &corev3.HeaderValue{Key: h[0], RawValue: []byte(h[1])})
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{
			Principal: c.caller, Certificate: c.certificate,
			Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
				SocketAddress: &corev3.SocketAddress{Address: c.ip},
			}},
		},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: c.method, Path: c.path, Host: "api.test", Headers: c.merged,
			HeaderMap: &corev3.HeaderMap{Headers: headers},
		}},
		ContextExtensions: map[string]string{"policy": c.policy, "route": c.route},
	}}
}

// atGateway is a call that the gateway's route "orders" allows.
func (f *fixture) atGateway(t testing.TB) call {
	t.Helper()
	return call{
		policy: "gateway/public", route: "orders", method: "GET", path: "/orders/1?x=y", ip: "192.0.2.1",
		headers: [][2]string{{"authorization", "Bearer " + f.token(t, nil)}, {"x-request-id", "req-1"}},
	}
}

// atService is a call that the service's route "get-order" allows.
func (f *fixture) atService(t testing.TB) call {
	t.Helper()
	return call{
		policy: "service/orders", route: "get-order", method: "GET", path: "/orders/1", ip: "10.0.0.1", caller: gatewayID, certificate: certificateOf(t, gatewayID),
		headers: [][2]string{{"txn-token", f.passport(t, unchanged)}, {"x-request-id", "req-1"}},
	}
}

// authorization replaces the Authorization lines of c.
func (c call) authorization(lines ...string) call {
	return c.header("authorization", lines...)
}

func (c call) header(name string, lines ...string) call {
	var headers [][2]string
	for _, h := range c.headers {
		if h[0] != name {
			headers = append(headers, h)
		}
	}
	for _, line := range lines {
		headers = append(headers, [2]string{name, line})
	}
	c.headers = headers
	return c
}
