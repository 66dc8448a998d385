package extauthz_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/passport"
)

// Attack rows B07, B08 and B09: whatever is wrong with a credential, a client is
// told the same, while operators are told what.
func TestRefusalsAreTheSame(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.allKinds(t)
	good := f.withKey(t)
	keys := f.accounts[len(f.accounts)-1].GetApiKeys()
	key := func(change func(*chancerypb.APIKey)) string {
		id, key := credential.GenerateAPIKey()
		k := &chancerypb.APIKey{Id: id, Client: "till", Owner: "ci", Hash: credential.HashAPIKey(key)}
		change(k)
		keys.ApiKeys = append(keys.ApiKeys, k)
		return key
	}
	fine := key(func(*chancerypb.APIKey) {})
	ended := key(func(k *chancerypb.APIKey) { k.Expires = timestamppb.New(time.Now().Add(-time.Second)) })
	revoked := key(func(k *chancerypb.APIKey) { k.Revoked = true })
	_, unknown := credential.GenerateAPIKey()
	users := f.accounts[1].GetUsers()
	users.Users = append(users.Users, &chancerypb.User{Name: "gone", Password: users.Users[0].Password, Disabled: true})
	basic := func(user, password string) []string {
		return []string{"Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))}
	}
	s := f.server(t, f.gatewayState(t))
	for kind, rows := range map[string]map[string]struct {
		lines  []string
		reason string
	}{
		"x-api-key": {
			"B07 prefix":       {[]string{"chk_"}, "api_key_invalid"},
			"B07 cut":          {[]string{fine[:len(fine)-1]}, "api_key_invalid"},
			"B07 case":         {[]string{strings.ToUpper(fine)}, "api_key_invalid"},
			"B07 ended":        {[]string{ended}, "api_key_expired"},
			"B07 revoked":      {[]string{revoked}, "api_key_disabled"},
			"B07 two":          {[]string{fine, fine}, "credential_ambiguous"},
			"B07 10 KiB":       {[]string{strings.Repeat("a", 10<<10)}, "api_key_invalid"},
			"B07 20 KiB":       {[]string{strings.Repeat("a", 20<<10)}, "token_malformed"},
			"B07 line feed":    {[]string{fine + "\n"}, "token_malformed"},
			"B08 unknown":      {[]string{unknown}, "api_key_invalid"},
			"B08 of a good id": {[]string{fine[:14] + unknown[14:]}, "api_key_invalid"},
		},
		"authorization": {
			"B08 unknown":        {basic("nobody", "secret"), "password_invalid"},
			"B08 wrong password": {basic("till", "guess"), "password_invalid"},
			"B03 empty":          {basic("", ""), "token_malformed"},
			"B03 no password":    {basic("till", ""), "token_malformed"},
			"B04 other case":     {basic("Till", "secret"), "password_invalid"},
			"B09 disabled":       {basic("gone", "secret"), "user_disabled"},
		},
	} {
		c := good.header("x-api-key")
		if kind == "authorization" {
			c.route, c.path = "basic", "/basic"
		}
		answers := map[string]bool{}
		for name, row := range rows {
			response, got := check(t, s, c.header(kind, row.lines...).request())
			if got.status != 401 || got.reason != row.reason {
				t.Errorf("%s %s: %+v, want %s", kind, name, got, row.reason)
			}
			denied := response.GetDeniedResponse()
			decision := response.GetDynamicMetadata().GetFields()["decision"].GetStringValue()
			denied.Body = strings.Replace(denied.GetBody(), decision, "", 1)
			answers[fmt.Sprint(denied)] = true
		}
		if len(answers) != 1 {
			t.Errorf("B08 %s: %d answers: %v", kind, len(answers), answers)
		}
	}
	if _, got := check(t, s, good.request()); got.status != 200 {
		t.Errorf("a good key: %+v", got)
	}
	query := good.header("x-api-key")
	query.path += "?api_key=" + fine
	if _, got := check(t, s, query.request()); got.status != 401 || got.reason != "credential_missing" {
		t.Errorf("B07 in the query: %+v", got)
	}
}

// Attack rows B06 and L02: who guesses is refused like any other, and elsewhere
// the user comes in.
func TestGuessesLockNobodyOut(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.allKinds(t)
	s := f.server(t, f.gatewayState(t))
	from := func(ip, password string) outcome {
		c := f.atGateway(t).authorization("Basic " + base64.StdEncoding.EncodeToString([]byte("till:"+password)))
		c.route, c.path, c.ip = "basic", "/basic", ip
		_, got := check(t, s, c.request())
		return got
	}
	const challenge = `Basic realm="public", charset="UTF-8"`
	for i := range 10 {
		if got, want := from("2001:db8::1", fmt.Sprint(i)), (outcome{401, "password_invalid", challenge}); got != want {
			t.Fatalf("guess %d: %+v", i, got)
		}
	}
	for name, row := range map[string]struct {
		ip   string
		want outcome
	}{
		"B06 with the right one then": {"2001:db8::1", outcome{401, "password_throttled", challenge}},
		"B06 from next door":          {"2001:db8::ffff:1", outcome{401, "password_throttled", challenge}},
		"L02 the user at home":        {"2001:db8:0:1::1", outcome{200, "allowed", ""}},
		"L02 the user elsewhere":      {"192.0.2.1", outcome{200, "allowed", ""}},
	} {
		if got := from(row.ip, "secret"); got != row.want {
			t.Errorf("%s: %+v, want %+v", name, got, row.want)
		}
	}
}

// Attack row C09: what the mesh itself minted opens no gateway, in whatever header
// it comes.
func TestPassportOpensNoGateway(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.allKinds(t)
	s := f.server(t, f.gatewayState(t))
	own := f.passport(t, func(*passport.Passport) {})
	both := f.atGateway(t).header("x-id-token", own)
	both.route, both.path = "both", "/both"
	key := f.atGateway(t).authorization().header("x-api-key", own)
	key.route, key.path = "key", "/key"
	for name, c := range map[string]call{
		"C09 as a bearer token": f.atGateway(t).authorization("Bearer " + own),
		"C09 as a Passport":     f.atGateway(t).authorization().header("txn-token", own),
		"C09 as an ID token":    both,
		"C09 as an API key":     key,
	} {
		if _, got := check(t, s, c.request()); got.status != 401 && got.status != 503 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	response, got := check(t, s, f.atGateway(t).header("txn-token", own).request())
	if got.status != 200 {
		t.Fatalf("C09 beside a good token: %+v", got)
	}
	set := response.GetOkResponse().GetHeaders()
	if len(set) != 1 || set[0].GetHeader().GetKey() != "txn-token" || set[0].GetHeader().GetValue() == own {
		t.Errorf("C09 beside a good token: %v", set)
	}
}
