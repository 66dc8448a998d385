package idptest_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/extauthz/introspection"
	"github.com/chancery-mesh/chancery/extauthz/provider"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/idptest"
	"github.com/chancery-mesh/chancery/mesh"
)

func TestFake(t *testing.T) {
	t.Parallel()
	contract(t, idptest.NewFake(t), all)
}

func TestOIDCProvider(t *testing.T) {
	t.Parallel()
	contract(t, idptest.StartOIDCProvider(t), 0)
}

func TestKeycloak(t *testing.T) {
	t.Parallel()
	contract(t, idptest.StartKeycloak(t), all)
}

// abilities are what not every provider has.
type abilities int

const (
	// introspectsJWTs says that it answers about JWTs, too.
	introspectsJWTs abilities = 1 << iota
	// namesClients says that it answers with a `sub` about a client's own
	// opaque token.
	namesClients
	// bindsTokens says that its ID tokens name the access token that they came
	// with (at_hash).
	bindsTokens

	all = introspectsJWTs | namesClients | bindsTokens
)

// rig is what keeps keys and asks, for one provider.
type rig struct {
	t     *testing.T
	idp   idptest.Provider
	keys  *provider.Keyring
	asks  *introspection.Introspector
	told  chan *chancerypb.Provider
	known *chancerypb.Provider
}

func newRig(t *testing.T, idp idptest.Provider) *rig {
	t.Helper()
	r := &rig{t: t, idp: idp, told: make(chan *chancerypb.Provider, 100)}
	var err error
	r.keys, err = provider.New(provider.Config{Changed: func(_ string, p *chancerypb.Provider) { r.told <- p }})
	if err != nil {
		t.Fatal(err)
	}
	r.asks, err = introspection.New(introspection.Config{
		Secret: func(name string) (string, error) { return idptest.Secret(name), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	d := idp.Document()
	d.Introspection.Cache = 0
	r.keys.Use([]*mesh.IdentityProvider{d})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.keys.Run(ctx) // it fails never
	}()
	t.Cleanup(func() { cancel(); <-done })
	for len(r.known.GetJwks()) == 0 {
		r.next()
	}
	return r
}

// next waits until something new is known of the provider.
func (r *rig) next() {
	r.t.Helper()
	select {
	case r.known = <-r.told:
	case <-time.After(30 * time.Second):
		r.t.Fatalf("nothing new is known within 30s: %+v", r.keys.Status())
	}
}

func (r *rig) access(token string) (*credential.Identity, error) {
	r.t.Helper()
	v, err := credential.NewVerifier(r.known)
	if err != nil {
		r.t.Fatal(err)
	}
	return v.Verify(token, time.Now(), nil)
}

func (r *rig) introspect(token string) (*credential.Identity, error) {
	r.t.Helper()
	return r.asks.Introspect(r.t.Context(), r.known, token, "192.0.2.1", time.Now())
}

// contract is what every provider must pass.
func contract(t *testing.T, idp idptest.Provider, can abilities) {
	t.Helper()
	r := newRig(t, idp)
	tokens := r.signsIn()
	r.isNobodyElse(can)
	r.introspects(tokens, can)
	r.hangs()
	r.rotates()
	decides(t, idp, can)
}

// isUser checks an identity of the user.
func (r *rig) isUser(what string, id *credential.Identity, err error) {
	r.t.Helper()
	if err != nil {
		r.t.Errorf("%s: %v", what, err)
		return
	}
	if id.Tenant != idptest.Tenant || id.Client != idptest.WebClient || !slices.Contains(id.Groups, idptest.Group) || id.User == "" {
		r.t.Errorf("%s: %+v", what, id)
	}
}

// signsIn checks an access token with its ID token.
func (r *rig) signsIn() idptest.Tokens {
	r.t.Helper()
	tokens := r.idp.Login(r.t, idptest.User, idptest.JWT)
	access, err := r.access(tokens.Access)
	r.isUser("access token", access, err)
	if err == nil && !slices.Contains(access.Scopes, idptest.Scope) {
		r.t.Errorf("scopes %v", access.Scopes)
	}
	v, err := credential.NewIDTokenVerifier(r.known, r.known.GetIdTokenAudiences())
	if err != nil {
		r.t.Fatal(err)
	}
	id, err := v.Verify(tokens.ID, time.Now(), nil)
	r.isUser("ID token", id, err)
	if r.t.Failed() {
		r.t.FailNow()
	}
	if err := credential.Match(access, id, tokens.Access); err != nil {
		r.t.Errorf("together: %v", err)
	}
	// Neither passes for the other, nor with that of another login.
	if _, err := r.access(tokens.ID); err == nil {
		r.t.Error("an ID token passes for an access token")
	}
	if _, err := v.Verify(tokens.Access, time.Now(), nil); err == nil {
		r.t.Error("an access token passes for an ID token")
	}
	return tokens
}

// isNobodyElse checks a client's own tokens.
func (r *rig) isNobodyElse(can abilities) {
	r.t.Helper()
	id, err := r.access(r.idp.ClientToken(r.t, idptest.JWT))
	if err != nil || id.Client != idptest.BatchClient || id.User == idptest.User {
		r.t.Errorf("client's own token: %+v, %v", id, err)
	}
	id, err = r.introspect(r.idp.ClientToken(r.t, idptest.Opaque))
	switch named := can&namesClients != 0; {
	case named && (err != nil || id.Client != idptest.BatchClient):
		r.t.Errorf("client's own opaque token: %+v, %v", id, err)
	case !named && !errors.Is(err, credential.BadClaim):
		r.t.Errorf("client's own opaque token, of nobody: %+v, %v", id, err)
	}
}

// introspects checks what the provider says of tokens, and that it says so no
// more when they are revoked.
func (r *rig) introspects(jwt idptest.Tokens, can abilities) {
	r.t.Helper()
	opaque := r.idp.Login(r.t, idptest.User, idptest.Opaque)
	tokens := []string{opaque.Access}
	if can&introspectsJWTs != 0 {
		tokens = append(tokens, jwt.Access)
	}
	for _, token := range tokens {
		id, err := r.introspect(token)
		r.isUser("introspected", id, err)
		r.idp.Revoke(r.t, token)
		if id, err := r.introspect(token); !errors.Is(err, credential.Inactive) {
			r.t.Errorf("revoked: %+v, %v", id, err)
		}
	}
	if can&introspectsJWTs == 0 { // it says that it cannot, which is no word on the token
		if id, err := r.introspect(jwt.Access); !errors.Is(err, introspection.ErrUnavailable) {
			r.t.Errorf("JWT: %+v, %v", id, err)
		}
	}
	if _, err := r.introspect(opaque.Access[:len(opaque.Access)-1]); !errors.Is(err, credential.Inactive) {
		r.t.Errorf("truncated: %v", err)
	}
	if _, err := r.introspect("no-token-of-this-provider"); !errors.Is(err, credential.Inactive) {
		r.t.Errorf("unknown: %v", err)
	}
}

// hangs checks what an outage does, and leaves alone.
func (r *rig) hangs() {
	r.t.Helper()
	jwt, opaque := r.idp.Login(r.t, idptest.User, idptest.JWT), r.idp.Login(r.t, idptest.User, idptest.Opaque)
	resume := r.idp.Hang(r.t)
	for deadline := time.Now().Add(20 * time.Second); r.keys.Status()[0].Error == ""; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatal("nobody notices that the provider hangs")
		}
	}
	id, err := r.access(jwt.Access)
	r.isUser("access token while the provider hangs", id, err)
	if _, err := r.introspect(opaque.Access); !errors.Is(err, introspection.ErrUnavailable) {
		r.t.Errorf("opaque token while the provider hangs: %v", err)
	}
	resume()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		id, err = r.introspect(opaque.Access)
		if r.keys.Status()[0].Error == "" && err == nil {
			break
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("not within 30s: %v; %+v", err, r.keys.Status())
		}
	}
	r.isUser("opaque token afterwards", id, err)
}

// rotates checks keys that come and go.
func (r *rig) rotates() {
	r.t.Helper()
	old := r.idp.Login(r.t, idptest.User, idptest.JWT)
	r.idp.Rotate(r.t, true)
	fresh := r.idp.Login(r.t, idptest.User, idptest.JWT)
	if _, err := r.access(fresh.Access); !errors.Is(err, credential.UnknownKey) {
		r.t.Errorf("new key before it is fetched: %v", err)
	}
	for _, err := r.access(fresh.Access); errors.Is(err, credential.UnknownKey); _, err = r.access(fresh.Access) {
		r.next()
	}
	for what, token := range map[string]string{"new": fresh.Access, "old": old.Access} {
		id, err := r.access(token)
		r.isUser(what+" key while both are published", id, err)
	}
	r.idp.Rotate(r.t, false)
	newest := r.idp.Login(r.t, idptest.User, idptest.JWT)
	for _, err := r.access(newest.Access); errors.Is(err, credential.UnknownKey); _, err = r.access(newest.Access) {
		r.next()
	}
	// Providers may need a moment between the new key and the end of the old.
	for _, token := range []string{fresh.Access, old.Access} {
		for _, err := r.access(token); !errors.Is(err, credential.UnknownKey); _, err = r.access(token) {
			r.next()
		}
	}
	id, err := r.access(newest.Access)
	r.isUser("newest key", id, err)
}
