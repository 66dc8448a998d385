package extauthz_test

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/extauthz/revocation"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/passport"
)

// Kinds of entries.
func bySubject(name string) *chancerypb.Revocation {
	return &chancerypb.Revocation{Whose: &chancerypb.Revocation_Subject{Subject: name}}
}

func byToken(id string) *chancerypb.Revocation {
	return &chancerypb.Revocation{Whose: &chancerypb.Revocation_Token{Token: id}}
}

func byClient(id string) *chancerypb.Revocation {
	return &chancerypb.Revocation{Whose: &chancerypb.Revocation_Client{Client: id}}
}

func byTenant(id string) *chancerypb.Revocation {
	return &chancerypb.Revocation{Whose: &chancerypb.Revocation_Tenant{Tenant: id}}
}

// began is when the tests did: some wait for others for longer than a minute.
var began = time.Now()

// revoke completes entries: of providers, none is all, until a minute before the
// tests.
func revoke(t testing.TB, entry *chancerypb.Revocation, providers ...string) *revocation.Index {
	t.Helper()
	entry.Id, entry.Providers = "e-1", providers
	entry.Before, entry.Expires = timestamppb.New(began.Add(-time.Minute)), timestamppb.New(time.Now().Add(time.Hour))
	ix, err := revocation.New(&chancerypb.Revocations{Sequence: 1, Entries: []*chancerypb.Revocation{entry}})
	if err != nil {
		t.Fatal(err)
	}
	return ix
}

// An entry refuses what it means with the next request, though it was verified
// before, and nothing else.
func TestRevokedCredentialIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.allKinds(t)
	old, fresh := began.Add(-2*time.Minute).Unix(), began.Add(-30*time.Second).Unix()
	access := func(change map[string]any) call {
		claims := map[string]any{"iat": old, "jti": "t-1"}
		maps.Copy(claims, change)
		return f.atGateway(t).authorization("Bearer " + f.token(t, claims))
	}
	both := func(accessIssued, idIssued int64) call {
		c := access(map[string]any{"iat": accessIssued})
		c.route, c.path = "both", "/both"
		return c.header("x-id-token", f.token(t, map[string]any{"aud": "web", "client_id": nil, "iat": idIssued, "jti": "id-1"}))
	}
	service := func(change func(*passport.Passport)) call {
		return f.atService(t).header("txn-token", f.passport(t, func(p *passport.Passport) {
			p.Authn, p.CredentialIDs, p.CredentialSubject, p.CredentialIssuedAt = "access_token", []string{"t-1", "id-1"}, "sub-1", time.Unix(old, 0)
			change(p)
		}))
	}
	key, password := f.withKey(t), f.atGateway(t).authorization("Basic "+base64.StdEncoding.EncodeToString([]byte("till:secret")))
	password.route, password.path = "basic", "/basic"
	denied := func(c string) outcome { return outcome{401, "token_revoked", c} }
	fine := outcome{200, "allowed", ""}
	const invalidBasic = `Basic realm="public", charset="UTF-8"`
	const invalidKey = `ApiKey realm="public"`
	for name, row := range map[string]struct {
		call      call
		entry     *chancerypb.Revocation
		providers []string
		want      outcome
	}{
		"nobody":                      {access(nil), bySubject("bob"), nil, fine},
		"user":                        {access(nil), bySubject("alice"), nil, denied(invalid)},
		"user of the provider":        {access(nil), bySubject("alice"), []string{"staff"}, denied(invalid)},
		"user of another provider":    {access(nil), bySubject("alice"), []string{"partners"}, fine},
		"token":                       {access(nil), byToken("t-1"), nil, denied(invalid)},
		"client":                      {access(nil), byClient("web"), nil, denied(invalid)},
		"tenant":                      {access(nil), byTenant("acme"), nil, denied(invalid)},
		"after a new login":           {access(map[string]any{"iat": fresh}), bySubject("alice"), nil, fine},
		"token without iat":           {access(map[string]any{"iat": nil}), bySubject("alice"), nil, denied(invalid)},
		"ID token":                    {both(fresh, old), byToken("id-1"), nil, denied(invalid)},
		"of both, the ID token's age": {both(fresh, old), bySubject("alice"), nil, denied(invalid)},
		"of both, the other's age":    {both(old, fresh), bySubject("alice"), nil, denied(invalid)},
		"both after a new login":      {both(fresh, fresh), bySubject("alice"), nil, fine},
		"API key by its owner":        {key, bySubject("ci"), nil, denied(invalidKey)},
		"API key by its client":       {key, byClient("till"), nil, denied(invalidKey)},
		"API key, of a provider":      {key, byClient("till"), []string{"staff", "shop"}, fine},
		"Basic":                       {password, bySubject("till"), nil, denied(invalidBasic)},
		"Basic, of a namesake":        {password, bySubject("till"), []string{"shop"}, fine},

		"Passport of nobody":           {service(unchanged), bySubject("bob"), nil, fine},
		"Passport of the user":         {service(unchanged), bySubject("alice"), []string{"staff"}, denied(txn)},
		"Passport of another provider": {service(unchanged), bySubject("alice"), []string{"partners"}, fine},
		"Passport of the token":        {service(unchanged), byToken("t-1"), []string{"staff"}, denied(txn)},
		"Passport of both tokens":      {service(unchanged), byToken("id-1"), []string{"staff"}, denied(txn)},
		"Passport of another token":    {service(unchanged), byToken("id-2"), []string{"staff"}, fine},
		"Passport of the subject":      {service(unchanged), bySubject("sub-1"), []string{"staff"}, denied(txn)},
		"Passport of the client":       {service(unchanged), byClient("web"), nil, denied(txn)},
		"Passport of the tenant":       {service(unchanged), byTenant("acme"), nil, denied(txn)},
		"Passport after a new login": {service(func(p *passport.Passport) {
			p.CredentialIssuedAt = time.Unix(fresh, 0)
		}), bySubject("alice"), nil, fine},
		"Passport that does not tell when": {service(func(p *passport.Passport) {
			p.CredentialIssuedAt = time.Time{}
		}), bySubject("alice"), nil, denied(txn)},
		"Passport that does not tell of what": {service(func(p *passport.Passport) {
			p.Authn = ""
		}), bySubject("alice"), []string{"staff"}, denied(txn)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			policy := f.gateway
			if strings.HasPrefix(row.call.policy, "service/") {
				policy = f.service
			}
			rules, err := extauthz.Compile(described(policy, f.provider))
			if err != nil {
				t.Fatal(err)
			}
			apply := func(revoked *revocation.Index) *extauthz.State {
				t.Helper()
				keys := f.keysOf()
				keys.Revocations = revoked
				state, err := rules.With(keys)
				if err != nil {
					t.Fatal(err)
				}
				return state
			}
			s := f.server(t, apply(&revocation.Index{}))
			expect := func(when string, want outcome) {
				t.Helper()
				if _, got := check(t, s, row.call.request()); got != want {
					t.Errorf("%s: %+v, want %+v", when, got, want)
				}
			}
			expect("before", fine) // and remembered
			s.SetState(apply(revoke(t, row.entry, row.providers...)))
			expect("revoked", row.want)
			expect("revoked, again", row.want)
			s.SetState(apply(&revocation.Index{}))
			expect("undone", fine)
		})
	}
}

// allKinds adds routes and documents for all kinds of credentials.
// A Passport goes with whatever it was minted for: both tokens, and a subject that
// is not the user's name.
func TestMintedPassportIsRevokedWithItsCredentials(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.allKinds(t)
	f.provider.Claims.User = "name"
	c := f.atGateway(t).authorization("Bearer " + f.token(t, map[string]any{"jti": "t-1", "sub": "s-1", "name": "alice"}))
	c.route, c.path = "both", "/both"
	c = c.header("x-id-token", f.token(t, map[string]any{"aud": "web", "client_id": nil, "iat": time.Now().Unix(), "jti": "id-1", "sub": "s-1", "name": "alice"}))
	response, got := check(t, f.server(t, f.gatewayState(t)), c.request())
	if got.status != 200 {
		t.Fatalf("at the gateway: %+v", got)
	}
	minted := response.GetOkResponse().GetHeaders()[0].GetHeader().GetValue()
	for name, row := range map[string]struct {
		entry *chancerypb.Revocation
		want  string
	}{
		"access token":  {byToken("t-1"), "token_revoked"},
		"ID token":      {byToken("id-1"), "token_revoked"},
		"another token": {byToken("t-2"), "allowed"},
		"user":          {bySubject("alice"), "token_revoked"},
		"subject":       {bySubject("s-1"), "token_revoked"},
		"another":       {bySubject("s-2"), "allowed"},
	} {
		f.revoked = revoke(t, row.entry, "staff")
		if _, got := check(t, f.server(t, f.serviceState(t)), f.atService(t).header("txn-token", minted).request()); got.reason != row.want {
			t.Errorf("%s: %+v, want %s", name, got, row.want)
		}
	}
}

func (f *fixture) allKinds(t testing.TB) {
	t.Helper()
	hash, err := credential.HashPassword("secret")
	if err != nil {
		t.Fatal(err)
	}
	f.provider.IdTokenAudiences = []string{"web"}
	f.provider.ClockSkew = durationpb.New(time.Second)
	f.gateway.Accounts = []string{"clients", "users/shop", "apikeys/0"}
	f.accounts = append(f.accounts, &chancerypb.Accounts{Of: &chancerypb.Accounts_Users{Users: &chancerypb.Users{
		Name: "shop", Users: []*chancerypb.User{{Name: "till", Password: hash}},
	}}})
	for name, credentials := range map[string]*chancerypb.Credentials{
		"both": {AccessToken: "staff", IdToken: "staff"}, "basic": {Basic: "shop"}, "key": {ApiKey: true},
	} {
		f.gateway.Routes = append(f.gateway.Routes, &chancerypb.RoutePolicy{
			Name: name, Path: "/" + name, Authentication: &chancerypb.Authentication{AnyOf: []*chancerypb.Credentials{credentials}},
		})
	}
}

// withKey is a call with an API key that is known from then on.
func (f *fixture) withKey(t testing.TB) call {
	t.Helper()
	id, key := credential.GenerateAPIKey()
	f.accounts = append(f.accounts, &chancerypb.Accounts{Of: &chancerypb.Accounts_ApiKeys{ApiKeys: &chancerypb.APIKeys{
		ApiKeys: []*chancerypb.APIKey{{Id: id, Client: "till", Owner: "ci", Hash: credential.HashAPIKey(key)}},
	}}})
	f.accounts[0].GetClients().Clients = []*chancerypb.Client{{Id: "till", Active: true}}
	c := f.atGateway(t).authorization().header("x-api-key", key)
	c.route, c.path = "key", "/key"
	return c
}

// As long as it is not known what is revoked, nothing that could be is let in.
func TestRevocationsThatAreNotKnown(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.revoked = nil
	f.gateway.Routes = append(f.gateway.Routes, &chancerypb.RoutePolicy{
		Name: "open", Path: "/open", Authentication: &chancerypb.Authentication{Anonymous: true},
	})
	open := f.atGateway(t).authorization()
	open.route, open.path = "open", "/open"
	for name, row := range map[string]struct {
		state *extauthz.State
		call  call
		want  outcome
	}{
		"gateway":   {f.gatewayState(t), f.atGateway(t), outcome{503, "no_revocations", ""}},
		"service":   {f.serviceState(t), f.atService(t), outcome{503, "no_revocations", ""}},
		"anonymous": {f.gatewayState(t), open, outcome{200, "allowed", ""}},
		"no token":  {f.gatewayState(t), f.atGateway(t).authorization(), outcome{401, "credential_missing", bearer}},
	} {
		if _, got := check(t, f.server(t, row.state), row.call.request()); got != row.want {
			t.Errorf("%s: %+v, want %+v", name, got, row.want)
		}
	}
}

// A decision that a revocation ended says which.
func TestRecordNamesTheRevocation(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.revoked = revoke(t, bySubject("alice"))
	s := f.server(t, f.gatewayState(t))
	steps := s.Explain(t.Context(), f.atGateway(t).hypothesis()).Steps()
	if last := steps[len(steps)-1]; last != (extauthz.Step{What: "revocation", Subject: "e-1", Outcome: "token_revoked"}) {
		t.Errorf("it ended at %+v", last)
	}
}

// Whatever is revoked, what an entry means is let in nowhere, and what none
// means everywhere.
func TestWhatAnyEntryMeansIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	gateway, err := extauthz.Compile(described(f.gateway, f.provider))
	if err != nil {
		t.Fatal(err)
	}
	service, err := extauthz.Compile(f.service)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(3, 4))
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	begin := time.Now().Truncate(time.Second)
	ago := func() time.Time { return begin.Add(-time.Duration(random.IntN(5)) * time.Minute) }
	s := f.server(t, nil)
	refused := 0
	for range 1000 {
		var entries []*chancerypb.Revocation
		for i := range random.IntN(4) {
			e := []func(string) *chancerypb.Revocation{bySubject, byToken, byClient, byTenant}[random.IntN(4)](pick("a", "b"))
			e.Id, e.Before, e.Expires = fmt.Sprint(i), timestamppb.New(ago()), timestamppb.New(begin.Add(time.Hour))
			if random.IntN(2) == 0 {
				e.Providers = []string{pick("staff", "partners")}
			}
			entries = append(entries, e)
		}
		index, err := revocation.New(&chancerypb.Revocations{Entries: entries})
		if err != nil {
			t.Fatal(err)
		}
		user, token, client, tenant, issued := pick("a", "b"), pick("a", "b"), pick("a", "b"), pick("a", "b"), ago()
		want := false
		for _, e := range entries {
			named := e.GetSubject() == user || e.GetToken() == token || e.GetClient() == client || e.GetTenant() == tenant
			of := len(e.GetProviders()) == 0 || e.GetProviders()[0] == "staff"
			want = want || named && of && !issued.After(e.GetBefore().AsTime())
		}
		if want {
			refused++
		}
		calls := map[*extauthz.Rules]call{
			gateway: f.atGateway(t).authorization("Bearer " + f.token(t, map[string]any{
				"sub": user, "jti": token, "client_id": client, "tenant": tenant, "iat": issued.Unix(),
			})),
			service: f.atService(t).header("txn-token", f.passport(t, func(p *passport.Passport) {
				p.Authn, p.Subject, p.CredentialIDs, p.Client, p.Tenant, p.CredentialIssuedAt = "access_token", user, []string{token}, client, tenant, issued
			})),
		}
		for rules, c := range calls {
			keys := f.keysOf()
			keys.Revocations = index
			state, err := rules.With(keys)
			if err != nil {
				t.Fatal(err)
			}
			s.SetState(state)
			if _, got := check(t, s, c.request()); (got.reason == "token_revoked") != want {
				t.Fatalf("%s: user %s, token %s, client %s, tenant %s, issued at %v, is %s by %v", c.policy, user, token, client, tenant, issued, got.reason, entries)
			}
		}
	}
	if refused < 200 || refused > 800 {
		t.Errorf("%d of 1000 are refused: that tells little", refused)
	}
}

// A decision point that is cut off for longer than its document bears decides
// nothing, until contact is made.
func TestStaleDecisionPoint(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		var contact time.Time
		serverOf := func(contact func() time.Time, limit time.Duration) *extauthz.Server {
			t.Helper()
			s, err := extauthz.New(extauthz.Config{
				Logger: slog.New(slog.DiscardHandler), Signer: func() *passport.Signer { return f.signer }, Contact: contact,
			})
			if err != nil {
				t.Fatal(err)
			}
			f.gateway.MaxStaleness = nil
			if limit > 0 {
				f.gateway.MaxStaleness = durationpb.New(limit)
			}
			s.SetState(f.gatewayState(t))
			return s
		}
		known := func() time.Time { return contact }
		s := serverOf(known, 5*time.Minute)
		others := map[string]*extauthz.Server{"without a limit": serverOf(known, 0), "of files": serverOf(nil, 5*time.Minute)}
		expect := func(when string, want outcome) {
			t.Helper()
			c := f.atGateway(t)
			if _, got := check(t, s, c.request()); got != want {
				t.Errorf("%s: %+v, want %+v", when, got, want)
			}
			for name, s := range others {
				if _, got := check(t, s, c.request()); got.status != 200 {
					t.Errorf("%s, %s: %+v", when, name, got)
				}
			}
		}
		fine, stale := outcome{200, "allowed", ""}, outcome{503, "pdp_stale", ""}
		expect("before any contact", stale)
		contact = time.Now()
		expect("in contact", fine)
		time.Sleep(5 * time.Minute)
		expect("at the limit", fine)
		time.Sleep(time.Second)
		expect("cut off", stale)
		contact = time.Now()
		expect("back", fine)
		contact = time.Now().Add(-6 * time.Minute).Round(0)
		expect("after a restart", stale)
		contact = time.Now().Add(time.Hour).Round(0)
		expect("contact that is yet to come", stale)
	})
}

// BenchmarkRevocations decides with few and with many revocations.
func BenchmarkRevocations(b *testing.B) {
	for _, n := range []int{0, 1, 100_000} {
		f := newFixture(b)
		entries := make([]*chancerypb.Revocation, n)
		for i := range entries {
			entries[i] = bySubject(fmt.Sprint("gone-", i))
			entries[i].Id, entries[i].Before, entries[i].Expires = fmt.Sprint(i), timestamppb.Now(), timestamppb.New(time.Now().Add(time.Hour))
		}
		var err error
		if f.revoked, err = revocation.New(&chancerypb.Revocations{Entries: entries}); err != nil {
			b.Fatal(err)
		}
		for name, row := range map[string]struct {
			state    *extauthz.State
			requests []*authv3.CheckRequest
		}{
			"gateway": {f.gatewayState(b), workload(b, f)},
			"service": {f.serviceState(b), []*authv3.CheckRequest{f.atService(b).request()}},
		} {
			b.Run(fmt.Sprint(name, "/", n), func(b *testing.B) { decide(b, f.server(b, row.state), row.requests) })
		}
	}
}
