package extauthz_test

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/passport"
)

const (
	basicChallenge = `Basic realm="public", charset="UTF-8"`
	keyChallenge   = `ApiKey realm="public"`
)

// Which alternative counts goes by the credentials that are there, and never by
// which of them are good.
func TestAlternatives(t *testing.T) {
	t.Parallel()
	e := newEdge(t, map[string]*chancerypb.Authentication{
		"key":           anyOf(&chancerypb.Credentials{ApiKey: true}),
		"basic":         anyOf(&chancerypb.Credentials{Basic: "till"}),
		"certificate":   anyOf(&chancerypb.Credentials{Certificate: certified()}),
		"id":            anyOf(&chancerypb.Credentials{IdToken: "staff"}),
		"both":          anyOf(&chancerypb.Credentials{AccessToken: "staff", IdToken: "staff"}),
		"token-and-key": anyOf(&chancerypb.Credentials{AccessToken: "staff", ApiKey: true}),
		"basic-and-key": anyOf(&chancerypb.Credentials{Basic: "till", ApiKey: true}),
		"basic-and-id":  anyOf(&chancerypb.Credentials{Basic: "till", IdToken: "staff"}),
		"any":           anyOf(&chancerypb.Credentials{AccessToken: "staff"}, &chancerypb.Credentials{ApiKey: true}, &chancerypb.Credentials{Basic: "till"}),
		"certified": anyOf(&chancerypb.Credentials{AccessToken: "staff", Certificate: certified()}, &chancerypb.Credentials{AccessToken: "staff"},
			&chancerypb.Credentials{Certificate: certified()}),
		"token-certificate": anyOf(&chancerypb.Credentials{AccessToken: "staff", Certificate: certified()}),
		"two":               anyOf(&chancerypb.Credentials{AccessToken: "staff", IdToken: "staff"}, &chancerypb.Credentials{ApiKey: true, IdToken: "staff"}),
		"issuers":           anyOf(&chancerypb.Credentials{AccessToken: "staff"}, &chancerypb.Credentials{AccessToken: "partners"}),
	})
	s := e.serve(t)
	token, id := "Bearer "+e.token(t, nil), e.idToken(t, nil)
	hashOf := func(token string) string {
		sum := sha256.Sum256([]byte(token))
		return base64.RawURLEncoding.EncodeToString(sum[:16])
	}
	good, other, partner := certificateOf(t, tillName), certificateOf(t, "spiffe://partner.example/other"), "Bearer "+e.ofPartners(t, nil)
	key := apiKeys()[keyOfWeb]
	ok := outcome{200, "allowed", ""}
	refused := func(reason, challenge string) outcome { return outcome{401, reason, challenge} }
	for name, row := range map[string]struct {
		call        call
		certificate string
		want        outcome
		authn, user string
	}{
		"key":                {e.at("key", "x-api-key", key), "", ok, "api_key", "bot"},
		"no key":             {e.at("key"), "", refused("credential_missing", keyChallenge), "", ""},
		"no such key":        {e.at("key", "x-api-key", apiKeys()[keyOfWeb][:52]+"0"), "", refused("api_key_invalid", keyChallenge), "", ""},
		"expired key":        {e.at("key", "x-api-key", apiKeys()[keyExpired]), "", refused("api_key_expired", keyChallenge), "", ""},
		"disabled key":       {e.at("key", "x-api-key", apiKeys()[keyDisabled]), "", refused("api_key_disabled", keyChallenge), "", ""},
		"key and token":      {e.at("key", "x-api-key", key, "authorization", token), "", refused("credential_unsupported", keyChallenge), "", ""},
		"two keys":           {e.at("key", "x-api-key", key, "x-api-key", key), "", refused("credential_ambiguous", keyChallenge), "", ""},
		"key in the query":   {func() call { c := e.at("key"); c.path += "?x-api-key=" + key; return c }(), "", refused("credential_missing", keyChallenge), "", ""},
		"basic":              {e.at("basic", "authorization", basic("carol", "hunter2!")), "", ok, "basic", "carol"},
		"wrong password":     {e.at("basic", "authorization", basic("carol", "hunter2")), "", refused("password_invalid", basicChallenge), "", ""},
		"no such user":       {e.at("basic", "authorization", basic("nobody", "hunter2!")), "", refused("password_invalid", basicChallenge), "", ""},
		"disabled user":      {e.at("basic", "authorization", basic("dave", "hunter2!")), "", refused("user_disabled", basicChallenge), "", ""},
		"bearer for basic":   {e.at("basic", "authorization", token), "", refused("credential_unsupported", basicChallenge), "", ""},
		"certificate":        {e.at("certificate"), good, ok, "client_certificate", tillName},
		"other certificate":  {e.at("certificate"), other, refused("certificate_name_mismatch", bearer+`, error="invalid_token"`), "", ""},
		"bad certificate":    {e.at("certificate"), "x", refused("certificate_invalid", invalid), "", ""},
		"no certificate":     {e.at("certificate"), "", refused("credential_missing", bearer), "", ""},
		"certificate header": {e.at("certificate", "x-forwarded-client-cert", "URI="+tillName), "", refused("credential_missing", bearer), "", ""},
		"certificate, token": {e.at("certificate", "authorization", token), good, refused("credential_unsupported", invalid), "", ""},

		"id":                        {e.at("id", "x-id-token", id), "", ok, "id_token", "alice"},
		"access token as id":        {e.at("id", "x-id-token", token[7:]), "", refused("audience_mismatch", invalid), "", ""},
		"id as access token":        {e.at("any", "authorization", "Bearer "+id), "", refused("token_type_mismatch", bearer+`, error="invalid_token", `+basicChallenge+", "+keyChallenge), "", ""},
		"both":                      {e.at("both", "authorization", token, "x-id-token", id), "", ok, "access_token+id_token", "alice"},
		"only the access token":     {e.at("both", "authorization", token), "", refused("credential_missing", bearer), "", ""},
		"only the id token":         {e.at("both", "x-id-token", id), "", refused("credential_missing", bearer), "", ""},
		"of another user":           {e.at("both", "authorization", token, "x-id-token", e.idToken(t, map[string]any{"sub": "bob"})), "", refused("credentials_mismatch", invalid), "", ""},
		"of another client":         {e.at("both", "authorization", token, "x-id-token", e.idToken(t, map[string]any{"aud": "app"})), "", refused("credentials_mismatch", invalid), "", ""},
		"of another tenant":         {e.at("both", "authorization", token, "x-id-token", e.idToken(t, map[string]any{"tenant": "globex"})), "", refused("credentials_mismatch", invalid), "", ""},
		"with at_hash":              {e.at("both", "authorization", token, "x-id-token", e.idToken(t, map[string]any{"at_hash": hashOf(token[7:])})), "", ok, "access_token+id_token", "alice"},
		"with at_hash of another":   {e.at("both", "authorization", token, "x-id-token", e.idToken(t, map[string]any{"at_hash": hashOf("x")})), "", refused("credentials_mismatch", invalid), "", ""},
		"id token expired":          {e.at("both", "authorization", token, "x-id-token", e.idToken(t, map[string]any{"exp": 1})), "", refused("token_expired", invalid), "", ""},
		"the same token twice":      {e.at("both", "authorization", token, "x-id-token", token[7:]), "", refused("audience_mismatch", invalid), "", ""},
		"issuer of the other":       {e.at("both", "authorization", partner, "x-id-token", id), "", refused("issuer_mismatch", invalid), "", ""},
		"token and key":             {e.at("token-and-key", "authorization", token, "x-api-key", key), "", ok, "access_token+api_key", "alice"},
		"token and another's key":   {e.at("token-and-key", "authorization", token, "x-api-key", apiKeys()[keyOfTill]), "", refused("credentials_mismatch", bearer+`, error="invalid_token", `+keyChallenge), "", ""},
		"token and a bad key":       {e.at("token-and-key", "authorization", token, "x-api-key", key[:52]+"0"), "", refused("api_key_invalid", bearer+`, error="invalid_token", `+keyChallenge), "", ""},
		"token of another tenant":   {e.at("token-and-key", "authorization", "Bearer "+e.token(t, map[string]any{"tenant": "globex"}), "x-api-key", key), "", refused("credentials_mismatch", bearer+`, error="invalid_token", `+keyChallenge), "", ""},
		"token without its key":     {e.at("token-and-key", "authorization", token), "", refused("credential_missing", bearer+", "+keyChallenge), "", ""},
		"basic and key":             {e.at("basic-and-key", "authorization", basic("carol", "hunter2!"), "x-api-key", key), "", ok, "api_key+basic", "carol"},
		"basic and id of the same":  {e.at("basic-and-id", "authorization", basic("alice", "hunter2!"), "x-id-token", id), "", ok, "id_token+basic", "alice"},
		"basic and id of another":   {e.at("basic-and-id", "authorization", basic("carol", "hunter2!"), "x-id-token", id), "", refused("credentials_mismatch", bearer+`, error="invalid_token", `+basicChallenge), "", ""},
		"any: token":                {e.at("any", "authorization", token), "", ok, "access_token", "alice"},
		"any: key":                  {e.at("any", "x-api-key", key), "", ok, "api_key", "bot"},
		"any: basic":                {e.at("any", "authorization", basic("carol", "hunter2!")), "", ok, "basic", "carol"},
		"any: token and key":        {e.at("any", "authorization", token, "x-api-key", key), "", refused("credential_ambiguous", bearer+`, error="invalid_token", `+basicChallenge+", "+keyChallenge), "", ""},
		"any: a bad one and a good": {e.at("any", "authorization", "Bearer x", "x-api-key", key), "", refused("credential_ambiguous", bearer+`, error="invalid_token", `+basicChallenge+", "+keyChallenge), "", ""},
		"any: with an id token":     {e.at("any", "authorization", token, "x-id-token", id), "", refused("credential_unsupported", bearer+`, error="invalid_token", `+basicChallenge+", "+keyChallenge), "", ""},
		"any: none":                 {e.at("any"), "", refused("credential_missing", bearer+", "+basicChallenge+", "+keyChallenge), "", ""},
		"any: a certificate":        {e.at("any", "x-api-key", key), other, ok, "api_key", "bot"},

		"certified":                      {e.at("certified", "authorization", token), good, ok, "access_token+client_certificate", "alice"},
		"certified, not by certificate":  {e.at("certified", "authorization", token), "", ok, "access_token", "alice"},
		"certified, by another":          {e.at("certified", "authorization", token), other, refused("certificate_name_mismatch", invalid), "", ""},
		"certified, without a token":     {e.at("certified"), good, ok, "client_certificate", tillName},
		"certified, by nothing":          {e.at("certified"), "", refused("credential_missing", bearer), "", ""},
		"token without its certificate":  {e.at("token-certificate", "authorization", token), "", refused("credential_missing", bearer), "", ""},
		"certificate without its token":  {e.at("token-certificate"), good, refused("credential_missing", bearer), "", ""},
		"two: a part of both":            {e.at("two", "x-id-token", id), "", refused("credential_missing", bearer+", "+keyChallenge), "", ""},
		"two: more than any":             {e.at("two", "authorization", token, "x-id-token", id, "x-api-key", key), "", refused("credential_ambiguous", bearer+`, error="invalid_token", `+keyChallenge), "", ""},
		"issuers: first":                 {e.at("issuers", "authorization", token), "", ok, "access_token", "alice"},
		"issuers: second":                {e.at("issuers", "authorization", partner), "", ok, "access_token", "pat"},
		"issuers: neither":               {e.at("issuers", "authorization", "Bearer "+e.token(t, map[string]any{"iss": "https://evil.test"})), "", refused("issuer_mismatch", invalid), "", ""},
		"issuers: second by the first":   {e.at("issuers", "authorization", "Bearer "+e.token(t, map[string]any{"iss": "https://partners.test"})), "", refused("signature_invalid", invalid), "", ""},
		"issuers: no token":              {e.at("issuers", "authorization", "Bearer x"), "", refused("token_malformed", invalid), "", ""},
		"issuers: of the first, expired": {e.at("issuers", "authorization", "Bearer "+e.token(t, map[string]any{"exp": 1})), "", refused("token_expired", invalid), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			row.call.certificate = row.certificate
			response, got := check(t, s, row.call.request())
			if got != row.want {
				t.Errorf("got %+v, want %+v", got, row.want)
			}
			if got.status != 200 {
				if len(response.GetOkResponse().GetHeaders()) > 0 {
					t.Errorf("headers %v", response)
				}
				return
			}
			p, _, err := passport.Inspect(response.GetOkResponse().GetHeaders()[0].GetHeader().GetValue())
			if err != nil || p.Authn != row.authn || p.Subject != row.user {
				t.Errorf("passport %+v, %v", p, err)
			}
			if diff := cmp.Diff([]string{"authorization", "x-id-token", "x-api-key"}, response.GetOkResponse().GetHeadersToRemove()); diff != "" {
				t.Errorf("removed (-want +got):\n%s", diff)
			}
		})
	}
}

// A key beside a token or a password is the client's: its tenant and its scopes
// are not lent to the user.
func TestKeysLendTheirClientAlone(t *testing.T) {
	t.Parallel()
	e := newEdge(t, map[string]*chancerypb.Authentication{
		"token": anyOf(&chancerypb.Credentials{AccessToken: "staff", ApiKey: true}),
		"basic": anyOf(&chancerypb.Credentials{Basic: "till", ApiKey: true}),
		"key":   anyOf(&chancerypb.Credentials{ApiKey: true}),
	})
	keys := e.accounts[1].GetApiKeys().GetApiKeys()
	keys[0].Tenant = "globex"
	users := e.accounts[2].GetUsers().GetUsers()
	users[0].Tenant = ""
	s := e.serve(t)
	key := apiKeys()[keyOfWeb]
	nobodys := "Bearer " + e.token(t, map[string]any{"tenant": nil, "scope": nil, "client_id": nil})
	for name, row := range map[string]struct {
		call                 call
		user, tenant, scopes string
	}{
		"token":    {e.at("token", "authorization", nobodys, "x-api-key", key), "alice", "", ""},
		"password": {e.at("basic", "authorization", basic("carol", "hunter2!"), "x-api-key", key), "carol", "", ""},
		"alone":    {e.at("key", "x-api-key", key), "bot", "globex", "orders.read"},
	} {
		response, got := check(t, s, row.call.request())
		if got.status != 200 {
			t.Errorf("%s: %+v", name, got)
			continue
		}
		p, _, err := passport.Inspect(response.GetOkResponse().GetHeaders()[0].GetHeader().GetValue())
		if err != nil || p.Subject != row.user || p.Tenant != row.tenant || strings.Join(p.Scopes, " ") != row.scopes || p.Client != "web" {
			t.Errorf("%s: passport %+v, %v", name, p, err)
		}
	}
}

// Who vouches for the user is in the Passport, so that services can tell, and in
// the record.
func TestPassportsSayWhoVouches(t *testing.T) {
	t.Parallel()
	e := newEdge(t, map[string]*chancerypb.Authentication{
		"key":         anyOf(&chancerypb.Credentials{ApiKey: true}),
		"basic":       anyOf(&chancerypb.Credentials{Basic: "till"}),
		"certificate": anyOf(&chancerypb.Credentials{Certificate: certified()}),
		"issuers":     anyOf(&chancerypb.Credentials{AccessToken: "staff"}, &chancerypb.Credentials{AccessToken: "partners", ApiKey: true}),
	})
	var sources []string
	e.record = func(r *extauthz.Record) error {
		sources = append(sources, r.Source)
		return nil
	}
	s := e.serve(t)
	withCertificate := e.at("certificate")
	withCertificate.certificate = certificateOf(t, tillName)
	for want, c := range map[string]call{
		"chancery:api-keys":     e.at("key", "x-api-key", apiKeys()[keyOfWeb]),
		"chancery:users/till":   e.at("basic", "authorization", basic("carol", "hunter2!")),
		"chancery:certificates": withCertificate,
		"staff":                 e.at("issuers", "authorization", "Bearer "+e.token(t, nil)),
		"partners":              e.at("issuers", "authorization", "Bearer "+e.ofPartners(t, nil), "x-api-key", apiKeys()[keyOfWeb]),
	} {
		response, got := check(t, s, c.request())
		if got.status != 200 {
			t.Errorf("%s: %+v", want, got)
			continue
		}
		minted := response.GetOkResponse().GetHeaders()[0].GetHeader().GetValue()
		if p, _, err := passport.Inspect(minted); err != nil || p.Provider != want {
			t.Errorf("%s: %+v, %v", want, p, err)
		}
		if last := sources[len(sources)-1]; last != want {
			t.Errorf("%s: the record says %q", want, last)
		}
	}
}

// An anonymous route takes no credential for one, and lets none through; a
// Passport that came with the request goes no further either.
func TestAnonymous(t *testing.T) {
	t.Parallel()
	e := newEdge(t, map[string]*chancerypb.Authentication{
		"open":     {Anonymous: true, Tenant: true, RegisteredClients: true, Acr: []string{"gold"}, Introspect: true},
		"optional": {Anonymous: true, AnyOf: []*chancerypb.Credentials{{AccessToken: "staff"}, {Certificate: certified()}}},
		"closed":   {},
		"unset":    nil,
	})
	s := e.serve(t)
	token := "Bearer " + e.token(t, nil)
	stripped := []string{"authorization", "x-id-token", "x-api-key", "txn-token"}
	for name, row := range map[string]struct {
		call    call
		want    outcome
		removed []string
	}{
		"open":                      {e.at("open"), outcome{200, "allowed", ""}, stripped},
		"open with credentials":     {e.at("open", "authorization", token, "x-api-key", "x", "txn-token", e.passport(t, unchanged)), outcome{200, "allowed", ""}, stripped},
		"open with bad credentials": {e.at("open", "authorization", "x", "authorization", "y"), outcome{200, "allowed", ""}, stripped},
		"optional without":          {e.at("optional"), outcome{200, "allowed", ""}, stripped},
		"optional with":             {e.at("optional", "authorization", token), outcome{200, "allowed", ""}, stripped[:3]},
		"optional with a bad one":   {e.at("optional", "authorization", "Bearer x"), outcome{401, "token_malformed", invalid}, nil},
		"optional with another":     {e.at("optional", "x-api-key", apiKeys()[keyOfWeb]), outcome{401, "credential_unsupported", invalid}, nil},
		"closed":                    {e.at("closed", "authorization", token), outcome{403, "route_closed", ""}, nil},
		"unset":                     {e.at("unset", "authorization", token), outcome{403, "route_closed", ""}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			response, got := check(t, s, row.call.request())
			if got != row.want {
				t.Errorf("got %+v, want %+v", got, row.want)
			}
			if diff := cmp.Diff(row.removed, response.GetOkResponse().GetHeadersToRemove()); diff != "" {
				t.Errorf("removed (-want +got):\n%s", diff)
			}
			if minted := len(response.GetOkResponse().GetHeaders()) > 0; minted != (len(row.removed) == 3) {
				t.Errorf("minted %v", response.GetOkResponse().GetHeaders())
			}
		})
	}
	// A gateway that mints nothing leaves credentials alone, but for Passports.
	e.gateway.Minting = nil
	plain := e.serve(t)
	for _, route := range []string{"open", "optional"} {
		response, got := check(t, plain, e.at(route, "authorization", token).request())
		if diff := cmp.Diff([]string{"txn-token"}, response.GetOkResponse().GetHeadersToRemove()); got.status != 200 || diff != "" {
			t.Errorf("%s: %+v, removed %s", route, got, diff)
		}
	}
}

// RFC 9470: a login that is not enough is challenged with what would be.
func TestLogin(t *testing.T) {
	t.Parallel()
	e := newEdge(t, map[string]*chancerypb.Authentication{
		"acr":  {AnyOf: token("staff").GetAnyOf(), Acr: []string{"gold", "urn:silver"}},
		"amr":  {AnyOf: token("staff").GetAnyOf(), Amr: []string{"pwd", "mfa"}},
		"age":  {AnyOf: token("staff").GetAnyOf(), MaxAge: seconds(900)},
		"all":  {AnyOf: token("staff").GetAnyOf(), Acr: []string{"gold"}, Amr: []string{"mfa"}, MaxAge: seconds(90)},
		"both": {AnyOf: []*chancerypb.Credentials{{AccessToken: "staff", IdToken: "staff"}}, Acr: []string{"gold"}},
	})
	s := e.serve(t)
	now := time.Now()
	at := func(route string, claims map[string]any) call {
		return e.at(route, "authorization", "Bearer "+e.token(t, claims))
	}
	ago := func(d time.Duration) map[string]any { return map[string]any{"auth_time": now.Add(-d).Unix()} }
	const stepUp = `Bearer realm="public", error="insufficient_user_authentication"`
	for name, row := range map[string]struct {
		call call
		want outcome
	}{
		"gold":               {at("acr", map[string]any{"acr": "gold"}), outcome{200, "allowed", ""}},
		"silver":             {at("acr", map[string]any{"acr": "urn:silver"}), outcome{200, "allowed", ""}},
		"bronze":             {at("acr", map[string]any{"acr": "bronze"}), outcome{401, "login_too_weak", stepUp + `, acr_values="gold urn:silver"`}},
		"two at once":        {at("acr", map[string]any{"acr": "gold urn:silver"}), outcome{401, "login_too_weak", stepUp + `, acr_values="gold urn:silver"`}},
		"no acr":             {at("acr", nil), outcome{401, "login_too_weak", stepUp + `, acr_values="gold urn:silver"`}},
		"acr is a list":      {at("acr", map[string]any{"acr": []string{"gold"}}), outcome{401, "login_too_weak", stepUp + `, acr_values="gold urn:silver"`}},
		"acr does not show":  {at("amr", map[string]any{"acr": "go\u0000ld", "amr": []string{"pwd", "mfa"}}), outcome{200, "allowed", ""}},
		"all methods":        {at("amr", map[string]any{"amr": []string{"mfa", "otp", "pwd"}}), outcome{200, "allowed", ""}},
		"one method":         {at("amr", map[string]any{"amr": []string{"pwd"}}), outcome{401, "login_too_weak", stepUp}},
		"methods in a text":  {at("amr", map[string]any{"amr": "pwd mfa"}), outcome{401, "login_too_weak", stepUp}},
		"no methods":         {at("amr", nil), outcome{401, "login_too_weak", stepUp}},
		"fresh":              {at("age", ago(10*time.Minute)), outcome{200, "allowed", ""}},
		"within the skew":    {at("age", ago(15*time.Minute+time.Second)), outcome{200, "allowed", ""}},
		"old":                {at("age", ago(15*time.Minute+40*time.Second)), outcome{401, "login_too_old", stepUp + `, max_age="900"`}},
		"of the future":      {at("age", ago(-5*time.Minute)), outcome{401, "login_too_old", stepUp + `, max_age="900"`}},
		"no time":            {at("age", nil), outcome{401, "login_too_old", stepUp + `, max_age="900"`}},
		"time is a text":     {at("age", map[string]any{"auth_time": "1"}), outcome{401, "login_too_old", stepUp + `, max_age="900"`}},
		"all":                {at("all", map[string]any{"acr": "gold", "amr": []string{"mfa"}, "auth_time": now.Unix()}), outcome{200, "allowed", ""}},
		"all but the class":  {at("all", map[string]any{"amr": []string{"mfa"}, "auth_time": now.Unix()}), outcome{401, "login_too_weak", stepUp + `, acr_values="gold", max_age="90"`}},
		"by the id token":    {e.at("both", "authorization", "Bearer "+e.token(t, nil), "x-id-token", e.idToken(t, map[string]any{"acr": "gold"})), outcome{200, "allowed", ""}},
		"by the other token": {e.at("both", "authorization", "Bearer "+e.token(t, map[string]any{"acr": "gold"}), "x-id-token", e.idToken(t, nil)), outcome{200, "allowed", ""}},
		"id token says less": {e.at("both", "authorization", "Bearer "+e.token(t, map[string]any{"acr": "gold"}), "x-id-token", e.idToken(t, map[string]any{"acr": "bronze"})), outcome{401, "login_too_weak", stepUp + `, acr_values="gold"`}},
		"bad token first":    {at("acr", map[string]any{"exp": 1}), outcome{401, "token_expired", invalid}},
	} {
		t.Run(name, func(t *testing.T) { // at once: logins grow old
			response, got := check(t, s, row.call.request())
			if got != row.want {
				t.Errorf("got %+v, want %+v", got, row.want)
			}
			if code := problemOf(t, response).Code; got.challenge != "" && (code == "step_up_required") != (got.reason[:5] == "login") {
				t.Errorf("code %s", code)
			}
		})
	}
}

func TestTenants(t *testing.T) {
	t.Parallel()
	e := newEdge(t, map[string]*chancerypb.Authentication{
		"required": {AnyOf: token("staff").GetAnyOf(), Tenant: true},
		"optional": {AnyOf: token("staff").GetAnyOf()},
	})
	at := func(route string, tenant any) call {
		return e.at(route, "authorization", "Bearer "+e.token(t, map[string]any{"tenant": tenant}))
	}
	for name, tenants := range map[string][]string{"any": nil, "listed": {"acme", "globex"}} {
		e.gateway.Minting.Tenants = tenants
		s := e.serve(t)
		for _, row := range []struct {
			route  string
			tenant any
			any    string
			listed string
		}{
			{"required", "acme", "allowed", "allowed"},
			{"required", nil, "tenant_missing", "tenant_missing"},
			{"required", "other", "allowed", "tenant_not_accepted"},
			{"required", "ACME", "allowed", "tenant_not_accepted"},
			{"optional", nil, "allowed", "tenant_not_accepted"},
			{"optional", "globex", "allowed", "allowed"},
			{"optional", "other", "allowed", "tenant_not_accepted"},
			{"optional", "", "claim_invalid", "claim_invalid"},
		} {
			want := row.any
			if tenants != nil {
				want = row.listed
			}
			_, got := check(t, s, at(row.route, row.tenant).request())
			status := map[string]int{"allowed": 200, "claim_invalid": 401, "tenant_missing": 403, "tenant_not_accepted": 403}[want]
			if got.reason != want || got.status != status || (got.challenge != "") != (status == 401) {
				t.Errorf("%s: %v at %s: %+v, want %s", name, row.tenant, row.route, got, want)
			}
		}
	}
}

func TestClients(t *testing.T) {
	t.Parallel()
	registered := func(c *chancerypb.Credentials) *chancerypb.Authentication {
		return &chancerypb.Authentication{AnyOf: []*chancerypb.Credentials{c}, RegisteredClients: true}
	}
	e := newEdge(t, map[string]*chancerypb.Authentication{
		"registered":     registered(&chancerypb.Credentials{AccessToken: "staff"}),
		"registered-key": registered(&chancerypb.Credentials{ApiKey: true}),
		"any":            token("staff"),
		"any-key":        anyOf(&chancerypb.Credentials{ApiKey: true}),
	})
	e.gateway.Destinations = []string{"orders", "payments"}
	e.gateway.Routes = append(e.gateway.Routes, &chancerypb.RoutePolicy{
		Name: "variable", Path: "/variable/{service}", To: "{service}", Authentication: registered(&chancerypb.Credentials{AccessToken: "staff"}),
	})
	s := e.serve(t)
	client := func(route string, id any) call {
		return e.at(route, "authorization", "Bearer "+e.token(t, map[string]any{"client_id": id}))
	}
	variable := func(service string) call {
		c := client("variable", "web")
		c.path = "/variable/" + service
		return c
	}
	for name, row := range map[string]struct {
		call call
		want string
		plan string
	}{
		"registered":            {client("registered", "web"), "allowed", "gold"},
		"for another service":   {client("registered", "app"), "client_api_not_allowed", "-"},
		"not active":            {client("registered", "till"), "client_inactive", "-"},
		"not known":             {client("registered", "stranger"), "client_not_registered", "-"},
		"in another case":       {client("registered", "WEB"), "client_not_registered", "-"},
		"not told":              {client("registered", nil), "client_not_registered", "-"},
		"of another tenant":     {client("registered", "globex"), "client_tenant_mismatch", "-"},
		"key of a client":       {e.at("registered-key", "x-api-key", apiKeys()[keyOfWeb]), "allowed", "gold"},
		"key, not active":       {e.at("registered-key", "x-api-key", apiKeys()[keyOfTill]), "client_inactive", "-"},
		"key of nobody":         {e.at("registered-key", "x-api-key", apiKeys()[keyOfStranger]), "client_not_registered", "-"},
		"any: known":            {client("any", "app"), "allowed", "-"},
		"any: not known":        {client("any", "stranger"), "allowed", "-"},
		"any: not told":         {client("any", nil), "allowed", "-"},
		"any: not active":       {client("any", "till"), "client_inactive", "-"},
		"any: other tenant":     {client("any", "globex"), "client_tenant_mismatch", "-"},
		"any: key, not active":  {e.at("any-key", "x-api-key", apiKeys()[keyOfTill]), "client_inactive", "-"},
		"variable":              {variable("orders"), "allowed", "gold"},
		"variable, not allowed": {variable("payments"), "client_api_not_allowed", "gold"},
		"variable, no service":  {variable("nowhere"), "route_mismatch", "-"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			response, got := check(t, s, row.call.request())
			status := 403
			if row.want == "allowed" {
				status = 200
			}
			if got != (outcome{status, row.want, ""}) {
				t.Errorf("got %+v, want %s", got, row.want)
			}
			if plan := response.GetDynamicMetadata().AsMap()["plan"]; plan != row.plan {
				t.Errorf("plan %v, want %s", plan, row.plan)
			}
		})
	}
}
