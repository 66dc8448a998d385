package extauthz_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/passport"
)

// authorityID is that of whoever signs the certificates of callers.
const authorityID = "c0ffee"

// trust trusts authorities but for some certificates.
type trust struct {
	authorities []string
	revoked     [][sha256.Size]byte
}

func (t *trust) IsRevoked(f [sha256.Size]byte) bool { return slices.Contains(t.revoked, f) }
func (t *trust) HasAuthority(id string) bool        { return slices.Contains(t.authorities, id) }

// certificateOf returns a caller's certificate as Envoy writes it.
func certificateOf(t testing.TB, uris ...string) string {
	t.Helper()
	return encodeCertificate(newCertificate(t, time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC), uris...))
}

func newCertificate(t testing.TB, expires time.Time, uris ...string) []byte {
	t.Helper()
	return signed(t, &x509.Certificate{NotAfter: expires}, uris...)
}

// certificateOfNames has so many names, each as short as can be.
func certificateOfNames(t testing.TB, names int) []byte {
	t.Helper()
	return signed(t, &x509.Certificate{NotAfter: time.Now().Add(time.Hour), DNSNames: slices.Repeat([]string{"a"}, names)})
}

func signed(t testing.TB, template *x509.Certificate, uris ...string) []byte {
	t.Helper()
	authority, err := hex.DecodeString(authorityID)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.AuthorityKeyId = big.NewInt(1), authority
	for _, uri := range uris {
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, u)
	}
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func encodeCertificate(der []byte) string {
	return url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

func TestCallerIsCheckedAtEachRequest(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.server(t, f.serviceState(t))
	good := f.atService(t)
	with := func(certificate string) call {
		c := good
		c.certificate = certificate
		return c
	}
	pemOf := func(kind string) string {
		text, err := url.PathUnescape(good.certificate)
		if err != nil {
			t.Fatal(err)
		}
		return url.PathEscape(strings.ReplaceAll(text, "CERTIFICATE", kind))
	}
	denied := func(reason string) outcome { return outcome{403, reason, ""} }
	for name, row := range map[string]struct {
		call call
		want outcome
	}{
		"good":                  {good, outcome{200, "allowed", ""}},
		"none":                  {with(""), denied("caller_certificate_missing")},
		"of another":            {with(certificateOf(t, serviceCaller)), denied("caller_certificate_mismatch")},
		"of a longer name":      {with(certificateOf(t, gatewayID+"2")), denied("caller_certificate_mismatch")},
		"of nobody":             {with(certificateOf(t)), denied("caller_certificate_invalid")},
		"of two":                {with(certificateOf(t, gatewayID, serviceCaller)), denied("caller_certificate_invalid")},
		"garbage":               {with("garbage"), denied("caller_certificate_invalid")},
		"not URL-encoded":       {with("%zz"), denied("caller_certificate_invalid")},
		"of another kind":       {with(pemOf("PUBLIC KEY")), denied("caller_certificate_invalid")},
		"two certificates":      {with(good.certificate + good.certificate), denied("caller_certificate_invalid")},
		"too large":             {with(good.certificate + strings.Repeat("\n", 16<<10)), denied("caller_certificate_invalid")},
		"certificate, no name":  {func() call { c := good; c.caller = ""; return c }(), denied("caller_not_allowed")},
		"escaped as a query is": {with(strings.ReplaceAll(good.certificate, "%20", "+")), denied("caller_certificate_invalid")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 2 { // what was refused is refused again, remembered or not
				if _, got := check(t, s, row.call.request()); got != row.want {
					t.Errorf("got %+v, want %+v", got, row.want)
				}
			}
		})
	}
}

// A certificate that ended while its connection is open is refused, a little
// later than that.
func TestCallerCertificateEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		s := f.server(t, f.serviceState(t))
		c := f.atService(t)
		for after, want := range map[time.Duration]string{0: "allowed", 5 * time.Second: "allowed", 6 * time.Second: "caller_certificate_expired"} {
			c.certificate = encodeCertificate(newCertificate(t, time.Now().Add(-after), gatewayID))
			if _, got := check(t, s, c.header("txn-token", f.passport(t, unchanged)).request()); got.reason != want {
				t.Errorf("after %v: %+v, want %s", after, got, want)
			}
		}
	})
}

// What is revoked while a connection is open is refused with the next request.
func TestRevokedCallerIsRefusedOnAnOpenConnection(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.server(t, f.serviceState(t))
	der := newCertificate(t, time.Now().Add(time.Hour), gatewayID)
	thief, renewed := f.atService(t), f.atService(t)
	thief.certificate = encodeCertificate(der)
	expect := func(c call, want string) {
		t.Helper()
		if _, got := check(t, s, c.request()); got.reason != want {
			t.Errorf("%s, want %s", got.reason, want)
		}
	}
	expect(thief, "allowed")
	f.trust = &trust{authorities: []string{authorityID}, revoked: [][sha256.Size]byte{sha256.Sum256(der)}}
	s.SetState(f.serviceState(t))
	expect(thief, "caller_certificate_revoked")
	expect(renewed, "allowed")

	f.trust = &trust{authorities: []string{"another"}}
	s.SetState(f.serviceState(t))
	expect(renewed, "caller_certificate_revoked")

	state, err := newState(f.service, extauthz.Keys{Passports: []*chancerypb.PassportKeys{f.keys}})
	if err != nil {
		t.Fatal(err)
	}
	s.SetState(state)
	expect(renewed, "no_trust")
}

func TestConnectionsInTheClear(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.service.Routes = append(f.service.Routes,
		&chancerypb.RoutePolicy{Name: "open", Path: "/open", Plaintext: true, Allow: "request.ip == '10.0.0.1'"},
		&chancerypb.RoutePolicy{Name: "user", Path: "/user", Plaintext: true, Allow: "user.id == 'alice'"},
		&chancerypb.RoutePolicy{Name: "anybody", Path: "/anybody", Plaintext: true, Allow: "!(caller.name == 'x')"},
		&chancerypb.RoutePolicy{Name: "login", Path: "/login", Plaintext: true, Allow: "true", Authentication: &chancerypb.Authentication{Acr: []string{"gold"}}},
		&chancerypb.RoutePolicy{Name: "token", Path: "/token", Plaintext: true, Allow: "true", Authentication: token("staff")},
		&chancerypb.RoutePolicy{Name: "anonymous", Path: "/anonymous", Plaintext: true, Allow: "true", Authentication: &chancerypb.Authentication{Anonymous: true}},
	)
	closed := f.server(t, f.serviceState(t))
	f.service.ClearPassport = true
	open := f.server(t, f.serviceState(t))
	clear := func(route string, passports ...string) call {
		c := f.atService(t).header("txn-token", passports...)
		c.caller, c.certificate, c.route, c.path = "", "", route, "/"+route
		if route == "get-order" {
			c.path = "/orders/1"
		}
		return c
	}
	valid := f.passport(t, unchanged)
	tls := clear("open", valid)
	tls.caller, tls.certificate = gatewayID, certificateOf(t, gatewayID)
	for name, row := range map[string]struct {
		call         call
		closed, open outcome
	}{
		"nobody":                      {clear("open"), outcome{200, "allowed", ""}, outcome{401, "passport_missing", txn}},
		"nobody logged in":            {clear("login"), outcome{401, "passport_missing", txn}, outcome{401, "passport_missing", txn}},
		"nobody showed a token":       {clear("token"), outcome{401, "passport_missing", txn}, outcome{401, "passport_missing", txn}},
		"nobody may be anybody":       {clear("anonymous"), outcome{200, "allowed", ""}, outcome{200, "allowed", ""}},
		"with a passport":             {clear("user", valid), outcome{401, "passport_in_clear", txn}, outcome{200, "allowed", ""}},
		"with an empty passport":      {clear("open", ""), outcome{401, "passport_in_clear", txn}, outcome{401, "passport_malformed", txn}},
		"with a forged passport":      {clear("user", valid[:len(valid)-4]+"AAAA"), outcome{401, "passport_in_clear", txn}, outcome{401, "passport_signature_invalid", txn}},
		"rule reads the user":         {clear("user"), outcome{403, "policy_error", ""}, outcome{401, "passport_missing", txn}},
		"rule reads the caller":       {clear("anybody"), outcome{403, "policy_error", ""}, outcome{401, "passport_missing", txn}},
		"rule reads it with passport": {clear("anybody", valid), outcome{401, "passport_in_clear", txn}, outcome{403, "policy_error", ""}},
		"route for callers":           {clear("get-order", valid), outcome{403, "caller_not_allowed", ""}, outcome{403, "caller_not_allowed", ""}},
		"caller on a route without":   {tls, outcome{403, "caller_not_allowed", ""}, outcome{403, "caller_not_allowed", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, got := check(t, closed, row.call.request()); got != row.closed {
				t.Errorf("got %+v, want %+v", got, row.closed)
			}
			if _, got := check(t, open, row.call.request()); got != row.open {
				t.Errorf("with passports in the clear: got %+v, want %+v", got, row.open)
			}
		})
	}
}

// A second gateway that the service takes Passports of speaks for its own
// providers and tenants alone.
func TestGatewaysSpeakForTheirOwn(t *testing.T) {
	t.Parallel()
	const partnerID = "spiffe://shop.example/gateway/partner"
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	partner, err := passport.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	keys := func(k passport.Key) *chancerypb.PassportKeys {
		k.Owner, k.Public = partnerID, partner.Public()
		jwks, err := passport.KeySet{partner.KeyID(): k}.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		return &chancerypb.PassportKeys{Gateway: "partner", SpiffeId: partnerID, Jwks: jwks}
	}
	partners := []string{"partners"}
	for name, row := range map[string]struct {
		accepted bool
		key      passport.Key
		change   func(*passport.Passport)
		reason   string
	}{
		"its own":                 {true, passport.Key{Providers: partners, Tenants: []string{"acme"}}, unchanged, "allowed"},
		"any tenant":              {true, passport.Key{Providers: partners}, unchanged, "allowed"},
		"gateway not accepted":    {false, passport.Key{Providers: partners}, unchanged, "passport_unknown_key"},
		"another's provider":      {true, passport.Key{Providers: partners}, func(p *passport.Passport) { p.Provider = "staff" }, "passport_provider_not_accepted"},
		"no provider":             {true, passport.Key{Providers: partners}, func(p *passport.Passport) { p.Provider = "" }, "passport_provider_not_accepted"},
		"another tenant":          {true, passport.Key{Providers: partners, Tenants: []string{"globex"}}, unchanged, "passport_tenant_not_accepted"},
		"key ended":               {true, passport.Key{Providers: partners, Until: time.Now().Add(-time.Minute)}, unchanged, "passport_key_expired"},
		"says it is the other":    {true, passport.Key{Providers: partners}, func(p *passport.Passport) { p.Gateway = gatewayID }, "passport_gateway_mismatch"},
		"the other's of provider": {true, passport.Key{}, unchanged, "passport_provider_not_accepted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			if row.accepted {
				f.service.Gateways = append(f.service.Gateways, "partner")
			}
			k := f.keysOf()
			k.Passports = append(k.Passports, keys(row.key))
			state, err := newState(f.service, k)
			if err != nil {
				t.Fatal(err)
			}
			f.signer = partner
			token := f.passport(t, func(p *passport.Passport) {
				p.Gateway, p.Provider = partnerID, "partners"
				row.change(p)
			})
			if _, got := check(t, f.server(t, state), f.atService(t).header("txn-token", token).request()); got.reason != row.reason {
				t.Errorf("reason %s, want %s", got.reason, row.reason)
			}
		})
	}
}

func TestGatewayLetsInItsTenants(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.gateway.Minting.Tenants = []string{"acme", "globex"}
	s := f.server(t, f.gatewayState(t))
	for tenant, want := range map[any]outcome{
		"acme": {200, "allowed", ""}, "acme2": {403, "tenant_not_accepted", ""}, "Acme": {403, "tenant_not_accepted", ""}, nil: {403, "tenant_not_accepted", ""},
	} {
		c := f.atGateway(t).authorization("Bearer " + f.token(t, map[string]any{"tenant": tenant}))
		if _, got := check(t, s, c.request()); got != want {
			t.Errorf("tenant %v: got %+v, want %+v", tenant, got, want)
		}
	}
}

// C17: no identity provider speaks for the tenants of another, and conditions tell
// whose users they let in.
func TestProvidersSpeakForTheirTenants(t *testing.T) {
	t.Parallel()
	issuers := func() *chancerypb.Authentication {
		return anyOf(&chancerypb.Credentials{AccessToken: "staff"}, &chancerypb.Credentials{AccessToken: "partners"}, &chancerypb.Credentials{Basic: "till"})
	}
	e := newEdge(t, map[string]*chancerypb.Authentication{"any": issuers(), "staff": issuers()})
	for _, r := range e.gateway.Routes {
		if r.Name == "staff" {
			r.Allow = "user.provider == 'staff'"
		}
	}
	e.provider.Tenants = []string{"acme"}
	partners := e.otherProvider[0]
	partners.Tenants, partners.Claims = []string{"globex", "umbrella"}, &chancerypb.ClaimMapping{Tenant: "tenant"}
	s := e.serve(t)
	staff := func(tenant any) string { return "Bearer " + e.token(t, map[string]any{"tenant": tenant}) }
	ofPartners := func(tenant string) string {
		return "Bearer " + e.ofPartners(t, map[string]any{"tenant": tenant, "groups": []string{"sales"}})
	}
	refused := outcome{403, "tenant_not_accepted", ""}
	for name, row := range map[string]struct {
		route, authorization string
		want                 outcome
	}{
		"of staff":                     {"any", staff("acme"), outcome{200, "allowed", ""}},
		"of partners":                  {"any", ofPartners("globex"), outcome{200, "allowed", ""}},
		"of partners for acme":         {"any", ofPartners("acme"), refused},
		"of staff for globex":          {"any", staff("globex"), refused},
		"of staff for nobody":          {"any", staff(nil), refused},
		"of partners for nobody":       {"any", "Bearer " + e.ofPartners(t, nil), refused},
		"of no provider":               {"any", basic("carol", "hunter2!"), outcome{200, "allowed", ""}},
		"condition of staff":           {"staff", staff("acme"), outcome{200, "allowed", ""}},
		"condition of partners":        {"staff", ofPartners("globex"), outcome{403, "policy_denied", ""}},
		"condition of a Users":         {"staff", basic("carol", "hunter2!"), outcome{403, "policy_denied", ""}},
		"condition of the wrong right": {"staff", ofPartners("acme"), refused},
	} {
		if _, got := check(t, s, e.at(row.route, "authorization", row.authorization).request()); got != row.want {
			t.Errorf("%s: got %+v, want %+v", name, got, row.want)
		}
	}
}

func TestServiceKnowsProvider(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.keys.Jwks = f.passportKeys(t, "staff", "partners")
	f.service.Routes[0].Allow = "user.provider == 'staff'"
	s := f.server(t, f.serviceState(t))
	for provider, want := range map[string]outcome{"staff": {200, "allowed", ""}, "partners": {403, "policy_denied", ""}} {
		c := f.atService(t).header("txn-token", f.passport(t, func(p *passport.Passport) { p.Provider = provider }))
		if _, got := check(t, s, c.request()); got != want {
			t.Errorf("%s: got %+v, want %+v", provider, got, want)
		}
	}
}
