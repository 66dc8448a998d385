package extauthz_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/passport"
)

// edge is a gateway that takes every kind of credential, each route another.
type edge struct {
	*fixture
	partners      *ecdsa.PrivateKey
	otherProvider []*chancerypb.Provider
	// asked are the tokens that the introspector was asked about.
	asked *answering
	// record is what the server records with.
	record func(*extauthz.Record) error
}

// Clients and keys that the edge knows.
const (
	keyOfWeb      = "k000000001"
	keyOfTill     = "k000000002" // whose client is not active
	keyExpired    = "k000000003"
	keyDisabled   = "k000000004"
	keyOfStranger = "k000000005" // whose client has no document
	tillName      = "spiffe://partner.example/till"
)

// apiKeys are made once: their ids are in documents, so they are no secret.
var apiKeys = sync.OnceValue(func() map[string]string {
	keys := map[string]string{}
	for _, id := range []string{keyOfWeb, keyOfTill, keyExpired, keyDisabled, keyOfStranger} {
		_, key := credential.GenerateAPIKey()
		key = key[:4] + id + key[14:]
		keys[id] = key
	}
	return keys
})

var passwordHash = sync.OnceValue(func() string {
	hash, err := credential.HashPassword("hunter2!")
	if err != nil {
		panic(err)
	}
	return hash
})

func newEdge(t testing.TB, routes map[string]*chancerypb.Authentication) *edge {
	t.Helper()
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{3}, 32))
	if err != nil {
		t.Fatal(err)
	}
	e := &edge{fixture: newFixture(t), partners: key, asked: &answering{}}
	e.provider.IdTokenAudiences = []string{"web", "app"}
	e.provider.Introspection = &chancerypb.Introspection{Client: "chancery", Secret: "staff"}
	e.otherProvider = []*chancerypb.Provider{
		{
			Name: "partners", Issuer: "https://partners.test", Audiences: []string{"shop-api"}, Jwks: publicKeys(t, key),
			UsableUntil: timestamppb.New(time.Now().Add(time.Hour)),
		},
		{
			Name: "legacy", Issuer: "https://legacy.test", Audiences: []string{"shop-api"}, Opaque: true,
			Introspection: &chancerypb.Introspection{Client: "chancery", Secret: "legacy"},
		},
	}
	e.gateway.Providers = named("staff", "partners", "legacy")
	e.gateway.Accounts = []string{"clients", "apikeys/00", "users/till"}
	e.gateway.Routes = nil
	for name, a := range routes {
		e.gateway.Routes = append(e.gateway.Routes, &chancerypb.RoutePolicy{Name: name, Path: "/" + name, Authentication: a, To: "orders"})
	}
	e.accounts = accountsOf()
	return e
}

func publicKeys(t testing.TB, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	jwk, err := jwkset.NewJWKFromKey(&key.PublicKey, jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: "k1"}})
	if err != nil {
		t.Fatal(err)
	}
	jwks, err := json.Marshal(jwkset.JWKSMarshal{Keys: []jwkset.JWKMarshal{jwk.Marshal()}})
	if err != nil {
		t.Fatal(err)
	}
	return jwks
}

func accountsOf() []*chancerypb.Accounts {
	key := func(id, client string) *chancerypb.APIKey {
		return &chancerypb.APIKey{
			Id: id, Client: client, Owner: "bot", Tenant: "acme", Scopes: []string{"orders.read"}, Hash: credential.HashAPIKey(apiKeys()[id]),
		}
	}
	expired, disabled := key(keyExpired, "web"), key(keyDisabled, "web")
	expired.Expires, disabled.Revoked = timestamppb.New(time.Now().Add(-time.Second)), true
	return []*chancerypb.Accounts{
		{Of: &chancerypb.Accounts_Clients{Clients: &chancerypb.Clients{Clients: []*chancerypb.Client{
			{Id: "web", Owner: "team-web", Apis: []string{"orders"}, Active: true, Plan: "gold"},
			{Id: "app", Owner: "team-app", Apis: []string{"payments"}, Active: true},
			{Id: "till", Owner: "team-till", Apis: []string{"orders"}},
			{Id: "globex", Owner: "globex", Apis: []string{"orders"}, Active: true, Tenant: "globex"},
		}}}},
		{Of: &chancerypb.Accounts_ApiKeys{ApiKeys: &chancerypb.APIKeys{ApiKeys: []*chancerypb.APIKey{
			key(keyOfWeb, "web"), key(keyOfTill, "till"), expired, disabled, key(keyOfStranger, "stranger"),
		}}}},
		{Of: &chancerypb.Accounts_Users{Users: &chancerypb.Users{Name: "till", Users: []*chancerypb.User{
			{Name: "carol", Password: passwordHash(), Groups: []string{"sales"}, Tenant: "acme"},
			{Name: "alice", Password: passwordHash(), Tenant: "acme"},
			{Name: "dave", Password: passwordHash(), Tenant: "acme", Disabled: true},
		}}}},
	}
}

// serve returns a server for the edge.
func (e *edge) serve(t testing.TB) *extauthz.Server {
	t.Helper()
	keys := e.keysOf()
	keys.Providers = append(keys.Providers, e.otherProvider...)
	state, err := newState(e.gateway, keys)
	if err != nil {
		t.Fatal(err)
	}
	s, err := extauthz.New(extauthz.Config{
		Logger: slog.New(slog.DiscardHandler), Signer: func() *passport.Signer { return e.signer },
		Introspector: e.asked, Record: e.record,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.SetState(state)
	return s
}

// at is a call of a route, with headers in pairs.
func (e *edge) at(route string, headers ...string) call {
	c := call{
		policy: "gateway/public", route: route, method: "GET", path: "/" + route, ip: "192.0.2.1",
		headers: [][2]string{{"x-request-id", "req-1"}},
	}
	for i := 0; i < len(headers); i += 2 {
		c.headers = append(c.headers, [2]string{headers[i], headers[i+1]})
	}
	return c
}

// idToken returns an ID token for client web, with claims changed.
func (e *edge) idToken(t testing.TB, change map[string]any) string {
	t.Helper()
	claims := map[string]any{"aud": "web", "client_id": nil, "nonce": "n", "groups": nil, "iat": time.Now().Unix()}
	maps.Copy(claims, change)
	return e.token(t, claims)
}

// ofPartners returns an access token of the other provider, with claims added.
func (e *edge) ofPartners(t testing.TB, more map[string]any) string {
	t.Helper()
	claims := jwt.MapClaims{
		"iss": "https://partners.test", "aud": "shop-api", "sub": "pat", "exp": time.Now().Add(time.Minute).Unix(),
	}
	maps.Copy(claims, more)
	token := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	token.Header["kid"] = "k1"
	signed, err := token.SignedString(e.partners)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// answering is an identity provider that answers by the name of the token; about
// JWTs it says what told has, or that they are alice's.
type answering struct {
	mu     sync.Mutex
	tokens []string
	told   *credential.Identity
	err    error
}

func (a *answering) Introspect(_ context.Context, p *chancerypb.Provider, token, _ string, _ time.Time) (*credential.Identity, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tokens = append(a.tokens, token)
	switch {
	case a.err != nil:
		return nil, a.err
	case a.told != nil:
		return a.told, nil
	case token == "inactive":
		return nil, credential.Inactive
	case token == "down":
		return nil, errors.New("dial tcp: connection refused")
	}
	return &credential.Identity{
		Kind: credential.KindAccessToken, Provider: p.GetName(), User: "alice", Tenant: "acme", Client: "web", Issuer: p.GetIssuer(), Subject: "alice",
	}, nil
}

// anyOf demands one of the alternatives.
func anyOf(alternatives ...*chancerypb.Credentials) *chancerypb.Authentication {
	return &chancerypb.Authentication{AnyOf: alternatives}
}

// certified is the certificate rule of the edge.
func certified() *chancerypb.CertificateRule {
	return &chancerypb.CertificateRule{Names: []string{tillName}}
}

func seconds(n int64) *durationpb.Duration { return &durationpb.Duration{Seconds: n} }

// problem is what a client reads of a refusal.
type problem struct {
	Type, Title, Code, Decision string
	Status                      int
}

// problemOf returns the problem of an answer, empty if it is none.
func problemOf(t testing.TB, r *authv3.CheckResponse) (p problem) {
	t.Helper()
	if body := r.GetDeniedResponse().GetBody(); body != "" {
		if err := json.Unmarshal([]byte(body), &p); err != nil {
			t.Fatalf("%q: %v", body, err)
		}
	}
	return p
}
