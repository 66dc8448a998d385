package extauthz_test

import (
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/passport"
)

// A service demands of Passports what they say of how their users came in.
func TestServiceJudgesHowUsersCameIn(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	allSources := []string{"staff", "partners", "chancery:users/till", "chancery:users/other", "chancery:api-keys", "chancery:certificates"}
	f.keys.Jwks = f.passportKeys(t, allSources...)
	f.service.Routes = nil
	for name, a := range map[string]*chancerypb.Authentication{
		"any":     nil,
		"token":   anyOf(&chancerypb.Credentials{AccessToken: "staff"}),
		"both":    anyOf(&chancerypb.Credentials{AccessToken: "staff", IdToken: "staff"}),
		"key":     anyOf(&chancerypb.Credentials{ApiKey: true}),
		"basic":   anyOf(&chancerypb.Credentials{Basic: "till"}),
		"cert":    anyOf(&chancerypb.Credentials{Certificate: &chancerypb.CertificateRule{}}),
		"either":  anyOf(&chancerypb.Credentials{AccessToken: "staff"}, &chancerypb.Credentials{Basic: "till", ApiKey: true}, &chancerypb.Credentials{AccessToken: "partners"}),
		"gold":    {Acr: []string{"gold"}},
		"mfa":     {AnyOf: []*chancerypb.Credentials{{ApiKey: true}}, Amr: []string{"mfa"}},
		"fresh":   {MaxAge: seconds(60)},
		"tenant":  {Tenant: true},
		"nobody":  {Anonymous: true},
		"nobody2": {Anonymous: true, AnyOf: []*chancerypb.Credentials{{ApiKey: true}}, Tenant: true},
	} {
		f.service.Routes = append(f.service.Routes, &chancerypb.RoutePolicy{
			Name: name, Path: "/" + name, Callers: []string{gatewayID}, Allow: "true", Authentication: a,
		})
	}
	s := f.server(t, f.serviceState(t))
	now := time.Now()
	came := func(authn, provider string) func(*passport.Passport) {
		return func(p *passport.Passport) { p.Authn, p.Provider = authn, provider }
	}
	login := func(acr string, amr []string, ago time.Duration) func(*passport.Passport) {
		return func(p *passport.Passport) {
			p.Authn, p.ACR, p.AMR = "access_token+api_key", acr, amr
			if ago != 0 {
				p.AuthTime = now.Add(-ago)
			}
		}
	}
	const stepUp = `Bearer realm="orders", error="insufficient_user_authentication"`
	missing := outcome{401, "passport_credentials_missing", txn}
	ok := outcome{200, "allowed", ""}
	for name, row := range map[string]struct {
		route  string
		change func(*passport.Passport)
		want   outcome
	}{
		"any":                     {"any", unchanged, ok},
		"token":                   {"token", came("access_token", "staff"), ok},
		"token and more":          {"token", came("access_token+api_key+client_certificate", "staff"), ok},
		"token of another":        {"token", came("access_token", "partners"), missing},
		"another kind":            {"token", came("api_key", "chancery:api-keys"), missing},
		"unknown kind":            {"token", came("access_tokens", "staff"), missing},
		"nothing told":            {"token", came("", "staff"), missing},
		"both":                    {"both", came("access_token+id_token", "staff"), ok},
		"one of both":             {"both", came("access_token", "staff"), missing},
		"key":                     {"key", came("api_key", "chancery:api-keys"), ok},
		"key beside a token":      {"key", came("access_token+api_key", "partners"), ok},
		"no key":                  {"key", came("access_token", "staff"), missing},
		"basic":                   {"basic", came("basic", "chancery:users/till"), ok},
		"basic of other users":    {"basic", came("basic", "chancery:users/other"), missing},
		"basic of a provider":     {"basic", came("basic", "staff"), missing},
		"certificate":             {"cert", came("client_certificate", "chancery:certificates"), ok},
		"certificate and token":   {"cert", came("access_token+client_certificate", "staff"), ok},
		"no certificate":          {"cert", came("access_token", "staff"), missing},
		"either: first":           {"either", came("access_token", "staff"), ok},
		"either: second":          {"either", came("api_key+basic", "chancery:users/till"), ok},
		"either: third":           {"either", came("access_token", "partners"), ok},
		"either: part of one":     {"either", came("basic", "chancery:users/till"), missing},
		"gold":                    {"gold", login("gold", nil, 0), ok},
		"bronze":                  {"gold", login("bronze", nil, 0), outcome{401, "login_too_weak", stepUp + `, acr_values="gold"`}},
		"no login":                {"gold", unchanged, outcome{401, "login_too_weak", stepUp + `, acr_values="gold"`}},
		"mfa":                     {"mfa", login("", []string{"pwd", "mfa"}, 0), ok},
		"password":                {"mfa", login("", []string{"pwd"}, 0), outcome{401, "login_too_weak", stepUp}},
		"mfa, by no key":          {"mfa", func(p *passport.Passport) { p.Authn, p.AMR = "access_token", []string{"mfa"} }, missing},
		"fresh":                   {"fresh", login("", nil, 30*time.Second), ok},
		"old":                     {"fresh", login("", nil, 2*time.Minute), outcome{401, "login_too_old", stepUp + `, max_age="60"`}},
		"of no time":              {"fresh", login("", nil, 0), outcome{401, "login_too_old", stepUp + `, max_age="60"`}},
		"tenant":                  {"tenant", unchanged, ok},
		"no tenant":               {"tenant", func(p *passport.Passport) { p.Tenant = "" }, outcome{403, "tenant_missing", ""}},
		"nobody":                  {"nobody", nil, ok},
		"nobody, with a Passport": {"nobody", unchanged, ok},
		"nobody, with a bad one":  {"nobody", func(p *passport.Passport) { p.Audience = "x.example" }, outcome{401, "passport_audience_mismatch", txn}},
		"nobody2":                 {"nobody2", nil, ok},
		"nobody2, by a token":     {"nobody2", came("access_token", "staff"), missing},
		"nobody2, by a key":       {"nobody2", came("api_key", "chancery:api-keys"), ok},
		"no Passport":             {"token", nil, outcome{401, "passport_missing", txn}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := f.atService(t).header("txn-token")
			c.route, c.path = row.route, "/"+row.route
			if row.change != nil {
				c = c.header("txn-token", f.passport(t, row.change))
			}
			if _, got := check(t, s, c.request()); got != row.want {
				t.Errorf("got %+v, want %+v", got, row.want)
			}
		})
	}
}

// A Passport for one order opens no other.
func TestBoundPassports(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.gateway.Routes = []*chancerypb.RoutePolicy{
		{
			Name: "order", Method: "POST", Path: "/orders/{id}", Authentication: token("staff"), MaxBody: 100,
			Bind: map[string]string{"order": "params.id", "amount": "string(request.body.amount)"},
		},
		{Name: "orders", Path: "/orders/**", Authentication: token("staff")},
	}
	f.service.Routes = []*chancerypb.RoutePolicy{{
		Name: "get-order", Path: "/orders/{id}", Callers: []string{gatewayID}, Allow: "passport.bound.order == params.id && passport.bound.amount == '99'",
	}}
	gateway, service := f.server(t, f.gatewayState(t)), f.server(t, f.serviceState(t))
	through := func(route, method, path, body string) (string, outcome) {
		c := f.atGateway(t).header("content-type", "application/json")
		c.route, c.method, c.path = route, method, path
		response, got := check(t, gateway, withBody(c.request(), body))
		if got.status != 200 {
			return "", got
		}
		return response.GetOkResponse().GetHeaders()[0].GetHeader().GetValue(), got
	}
	bound, got := through("order", "POST", "/orders/42", `{"amount": 99}`)
	if got.status != 200 {
		t.Fatalf("gateway: %+v", got)
	}
	unbound, _ := through("orders", "GET", "/orders/42", "")
	other, _ := through("order", "POST", "/orders/43", `{"amount": 99}`)
	for name, row := range map[string]struct {
		token, path string
		want        string
	}{
		"its own":           {bound, "/orders/42", "allowed"},
		"another":           {bound, "/orders/43", "policy_denied"},
		"spelt differently": {bound, "/orders/042", "policy_denied"},
		"of another":        {other, "/orders/42", "policy_denied"},
		"of none":           {unbound, "/orders/42", "policy_error"},
	} {
		c := f.atService(t).header("txn-token", row.token)
		c.path = row.path
		if _, got := check(t, service, c.request()); got.reason != row.want {
			t.Errorf("%s: %+v, want %s", name, got, row.want)
		}
	}
	// What cannot be bound mints nothing.
	for _, body := range []string{"", `{}`, `{"amount": ""}`, `{"amount": [1]}`, `{"amount": 1, "amount": 99}`, "{\"amount\": \"a\\nb\"}"} {
		if token, got := through("order", "POST", "/orders/42", body); token != "" || got != (outcome{403, "binding_error", ""}) {
			t.Errorf("%s: %+v", body, got)
		}
	}
}
