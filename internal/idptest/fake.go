package idptest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"github.com/chancery-mesh/chancery/mesh"
)

// The paths of a [Fake].
const (
	Discovery     = "/.well-known/openid-configuration"
	Keys          = "/keys"
	Introspection = "/introspect"
)

// Fake is an identity provider in this process. It is safe for concurrent use.
type Fake struct {
	*httptest.Server

	mu         sync.Mutex
	answers    map[string]http.HandlerFunc
	asked      map[string]int
	keys       []key
	generation int
	// active are the claims of tokens that were not revoked.
	active map[string]map[string]any
}

var _ Provider = (*Fake)(nil)

type key struct {
	kid, alg string
	private  crypto.Signer
}

// NewFake returns one that is well, until the test ends.
func NewFake(t testing.TB) *Fake {
	t.Helper()
	f := &Fake{answers: map[string]http.HandlerFunc{}, asked: map[string]int{}, active: map[string]map[string]any{}}
	f.Rotate(t, false)
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(func() {
		f.CloseClientConnections() // of handlers that hang
		f.Close()
	})
	return f
}

// Answer gives another answer on a path from now on; nil gives the usual one
// again.
func (f *Fake) Answer(path string, h http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[path] = h
}

// Asked returns how often a path was asked for.
func (f *Fake) Asked(path string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[path]
}

func (f *Fake) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.asked[r.URL.Path]++
	answer := f.answers[r.URL.Path]
	f.mu.Unlock()
	if answer == nil {
		answer = map[string]http.HandlerFunc{
			Discovery: f.discovery, Keys: f.jwks, Introspection: f.introspect,
		}[r.URL.Path]
	}
	if answer == nil {
		answer = http.NotFound
	}
	answer(w, r)
}

func (f *Fake) discovery(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]any{
		"issuer": f.URL, "jwks_uri": f.URL + Keys, "introspection_endpoint": f.URL + Introspection,
	})
}

// jwks answers as providers do that know ETag.
func (f *Fake) jwks(w http.ResponseWriter, r *http.Request) {
	body := f.JWKS()
	tag := fmt.Sprintf("%q", base64.RawURLEncoding.EncodeToString(sum(body)))
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(body)
}

func sum(b []byte) []byte { s := sha256.Sum256(b); return s[:] }

// JWKS returns the keys that are published.
func (f *Fake) JWKS() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	var set jwkset.JWKSMarshal
	for _, k := range f.keys {
		set.Keys = append(set.Keys, PublicJWK(k.private.Public(), k.kid, k.alg))
	}
	body, err := json.Marshal(set)
	if err != nil {
		panic(err)
	}
	return body
}

// PublicJWK returns a key as providers publish it.
func PublicJWK(public crypto.PublicKey, kid, alg string) jwkset.JWKMarshal {
	k, err := jwkset.NewJWKFromKey(public, jwkset.JWKOptions{
		Metadata: jwkset.JWKMetadataOptions{KID: kid, ALG: jwkset.ALG(alg), USE: jwkset.UseSig},
	})
	if err != nil {
		panic(err)
	}
	return k.Marshal()
}

func (f *Fake) introspect(w http.ResponseWriter, r *http.Request) {
	client, secret, _ := r.BasicAuth()
	if client != APIClient || secret != Secret(APIClient) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	f.mu.Lock()
	claims := maps.Clone(f.active[r.PostFormValue("token")])
	f.mu.Unlock()
	if claims == nil {
		claims = map[string]any{"active": false}
	}
	writeJSON(w, claims)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// Document implements Provider.
func (f *Fake) Document() *mesh.IdentityProvider { return document("fake", f.URL) }

func document(name, issuer string) *mesh.IdentityProvider {
	return &mesh.IdentityProvider{
		Name: name, Issuer: issuer, Audiences: []string{Audience},
		Claims:       mesh.ClaimMapping{User: "sub", Groups: "groups", Tenant: "tenant"},
		ClockSkew:    30 * time.Second,
		Refresh:      time.Second,
		KeysMaxAge:   time.Hour,
		AllowPrivate: true,

		IDTokenAudiences: []string{WebClient},
		Introspection:    &mesh.Introspection{Client: APIClient, Secret: APIClient, Cache: 30 * time.Second, Rate: 100},
	}
}

// Login implements Provider.
func (f *Fake) Login(t testing.TB, user string, kind Kind) Tokens {
	t.Helper()
	access := f.token(t, kind, map[string]any{"sub": user, "client_id": WebClient, "tenant": Tenant, "groups": []string{Group}})
	half := sum([]byte(access))[:sha256.Size/2]
	id := f.Sign(t, map[string]any{"typ": "JWT"}, map[string]any{
		"sub": user, "aud": WebClient, "tenant": Tenant, "groups": []string{Group},
		"at_hash": base64.RawURLEncoding.EncodeToString(half),
	})
	return Tokens{Access: access, ID: id}
}

// ClientToken implements Provider.
func (f *Fake) ClientToken(t testing.TB, kind Kind) string {
	t.Helper()
	return f.token(t, kind, map[string]any{"sub": BatchClient, "client_id": BatchClient, "tenant": Tenant})
}

func (f *Fake) token(t testing.TB, kind Kind, claims map[string]any) string {
	t.Helper()
	claims["aud"], claims["scope"] = Audience, Scope
	token := rand.Text()
	if kind == JWT {
		token = f.Sign(t, map[string]any{"typ": "at+jwt"}, claims)
	}
	f.Activate(token, claims)
	return token
}

// Activate makes the provider know a token. Claims are added to the usual ones
// in the answer of introspection, or replace them; nil removes one.
func (f *Fake) Activate(token string, claims map[string]any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := f.usual()
	answer["active"], answer["token_type"] = true, "Bearer"
	f.active[token] = with(answer, claims)
}

// Sign returns a JWT by the newest ES256 key. Header and claims are added to the
// usual ones, or replace them; nil removes one.
func (f *Fake) Sign(t testing.TB, header, claims map[string]any) string {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	k := f.keys[0]
	token := jwt.NewWithClaims(jwt.GetSigningMethod(k.alg), jwt.MapClaims(with(f.usual(), claims)))
	token.Header["kid"] = k.kid
	token.Header = with(token.Header, header)
	signed, err := token.SignedString(k.private)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func (f *Fake) usual() map[string]any {
	now := time.Now()
	return map[string]any{"iss": f.URL, "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix()}
}

func with(usual, more map[string]any) map[string]any {
	for name, v := range more {
		if usual[name] = v; v == nil {
			delete(usual, name)
		}
	}
	return usual
}

// Revoke implements Provider.
func (f *Fake) Revoke(_ testing.TB, token string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.active, token)
}

// Rotate implements Provider.
func (f *Fake) Rotate(t testing.TB, keep bool) {
	t.Helper()
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.generation++
	fresh := []key{
		{fmt.Sprintf("es256-%d", f.generation), "ES256", e},
		{fmt.Sprintf("rs256-%d", f.generation), "RS256", r},
	}
	if keep {
		fresh = append(fresh, f.keys...)
	}
	f.keys = fresh
}

// Hang implements Provider.
func (f *Fake) Hang(testing.TB) (resume func()) {
	for _, path := range []string{Discovery, Keys, Introspection} {
		f.Answer(path, Silence)
	}
	return func() {
		for _, path := range []string{Discovery, Keys, Introspection} {
			f.Answer(path, nil)
		}
	}
}

// Silence never answers.
func Silence(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // only then does the server see that the client is gone
	<-r.Context().Done()
}

// Text answers with a text.
func Text(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = strings.NewReader(body).WriteTo(w) }
}
