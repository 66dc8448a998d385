package extauthz_test

import (
	"strings"
	"testing"

	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// Credentials that are good for ever: processes that fuzz together must agree on
// them, and each ES256 signature is another.
const (
	goodAccessToken = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsxIiwidHlwIjoiSldUIn0." +
		"eyJhdWQiOiJzaG9wLWFwaSIsImNsaWVudF9pZCI6IndlYiIsImV4cCI6MjUzNDAyMzAwNzk5LCJncm91cHMiOlsic2FsZXMiXSwiaXNzIjoiaHR0cHM6Ly9pZHAudGVzdCIsInN1YiI6ImFsaWNlIiwidGVuYW50IjoiYWNtZSJ9." +
		"n-7X3cs0_wUexXgyR5h0SESwAs2lS0pH9vYZOvhVIybveKusGVPHPLvitVIiwPuqAe1bknQUzOGpElwdFfM3FQ"
	goodIDToken = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsxIiwidHlwIjoiSldUIn0." +
		"eyJhdWQiOiJ3ZWIiLCJhenAiOiJ3ZWIiLCJleHAiOjI1MzQwMjMwMDc5OSwiZ3JvdXBzIjpbInNhbGVzIl0sImlhdCI6MSwiaXNzIjoiaHR0cHM6Ly9pZHAudGVzdCIsIm5vbmNlIjoibiIsInN1YiI6ImFsaWNlIiwidGVuYW50IjoiYWNtZSJ9." +
		"zNvKG-vQ9OQc9xMZQFyegxkkzcSon-CPBojX2wpsmkD2WhkZFhYnUHl0tiayokSxBkJsP1tch09PfYJbFx_w-g"
	goodAPIKey = "chk_abcdefghij_0123456789abcdefghijABCDEFGHIJ01_000000"
)

// A route that takes any kind of credential lets in who shows one of those that
// there are, byte for byte, in its own place and alone; whatever else the headers
// and the query say.
func FuzzCredentials(f *testing.F) {
	x := newFixture(f)
	const access, idToken, key = goodAccessToken, goodIDToken, goodAPIKey
	x.provider.IdTokenAudiences = []string{"web"}
	x.accounts = append(x.accounts, &chancerypb.Accounts{Of: &chancerypb.Accounts_ApiKeys{ApiKeys: &chancerypb.APIKeys{
		ApiKeys: []*chancerypb.APIKey{{Id: key[4:14], Owner: "robot", Hash: credential.HashAPIKey(key)}},
	}}})
	x.gateway.Routes[0].Authentication = &chancerypb.Authentication{AnyOf: []*chancerypb.Credentials{
		{AccessToken: "staff"}, {IdToken: "staff"}, {ApiKey: true}, {AccessToken: "staff", ApiKey: true},
	}}
	s := x.server(f, x.gatewayState(f))
	for _, seed := range [][4]string{
		{"Bearer " + access, "", "", ""},
		{"", idToken, "", ""},
		{"", "", key, ""},
		{"Bearer " + access, "", key, ""},
		{"Bearer " + access, idToken, key, ""},
		{"Basic YTpi", "", "", ""},
		{"bearer " + access, "", "", "x=1"},
		{"Bearer " + access, "", "", "access_token=a"},
		{"Bearer " + access, "", "", "no_access_token=a"},
		{"", "", key + ",", "%61ccess_token"},
		{"Bearer " + key, access, idToken, ""},
		{"Bearer " + access + "\x00", "", "", ""},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	f.Fuzz(func(t *testing.T, authorization, token, apiKey, query string) {
		c := x.atGateway(t).authorization()
		c.path = "/orders/1?" + strings.ToValidUTF8(query, "")
		for name, value := range map[string]string{"authorization": authorization, "x-id-token": token, "x-api-key": apiKey} {
			if value != "" {
				c = c.header(name, value)
			}
		}
		_, got := check(t, s, c.request())
		scheme, shown, _ := strings.Cut(authorization, " ")
		hasAccess := strings.EqualFold(scheme, "bearer") && shown == access
		good := hasAccess && token == "" && (apiKey == "" || apiKey == key) || authorization == "" && token == idToken && apiKey == "" ||
			authorization == "" && token == "" && apiKey == key
		if got.status == 200 && !good {
			t.Errorf("allowed %q, %q, %q, %q", authorization, token, apiKey, query)
		}
		if got.status == 200 && hasToken(strings.ToValidUTF8(query, "")) && !strings.ContainsAny(query, "?#") {
			t.Errorf("allowed with a token in %q", query)
		}
		if got.status >= 500 {
			t.Errorf("%+v for %q, %q, %q, %q", got, authorization, token, apiKey, query)
		}
	})
}

// hasToken reports whether a parameter of a query is plainly a token.
func hasToken(query string) bool {
	for part := range strings.FieldsFuncSeq(strings.ToLower(query), func(r rune) bool { return r == '&' || r == ';' }) {
		if strings.HasPrefix(part, "access_token=") {
			return true
		}
	}
	return false
}
