package credential_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/extauthz/credential"
)

// header is a request's, for Find.
type header map[string][]string

func (h header) lines(name string) []string { return h[name] }

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestFind(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		header header
		query  string
		want   credential.Found
	}{
		"nothing":      {nil, "a=b", credential.Found{}},
		"access token": {header{"authorization": {"Bearer a.b-_~+/c=="}}, "", credential.Found{Kinds: credential.KindAccessToken, AccessToken: "a.b-_~+/c=="}},
		"scheme in any case": {header{"authorization": {"bEARER abc"}}, "", credential.Found{
			Kinds: credential.KindAccessToken, AccessToken: "abc",
		}},
		"basic": {header{"authorization": {basic("alice", "a:b")}}, "", credential.Found{
			Kinds: credential.KindBasic, Basic: credential.Basic{User: "alice", Password: "a:b"},
		}},
		"three kinds": {
			header{"authorization": {"Bearer a"}, "x-id-token": {"i"}, "x-api-key": {"k"}},
			"x=access_token",
			credential.Found{
				Kinds:       credential.KindAccessToken | credential.KindIDToken | credential.KindAPIKey,
				AccessToken: "a", IDToken: "i", APIKey: "k",
			},
		},
	} {
		got, err := credential.Find(row.header.lines, row.query)
		if diff := cmp.Diff(row.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
}

// Attack rows J29, B03 and, so far as it is about places, B07.
func TestFindRefuses(t *testing.T) {
	t.Parallel()
	authorization := func(lines ...string) header { return header{"authorization": lines} }
	good := authorization("Bearer a")
	encoded := func(text string) header {
		return authorization("Basic " + base64.StdEncoding.EncodeToString([]byte(text)))
	}
	for name, row := range map[string]struct {
		header header
		query  string
		want   credential.Reason
	}{
		"J29 two lines":               {authorization("Bearer a", "Bearer b"), "", credential.Ambiguous},
		"J29 two lines, the same":     {authorization("Bearer a", "Bearer a"), "", credential.Ambiguous},
		"J29 two lines, one empty":    {authorization("", "Bearer b"), "", credential.Ambiguous},
		"J29 two lines, two schemes":  {authorization("Bearer a", basic("a", "b")), "", credential.Ambiguous},
		"J29 joined":                  {authorization("Bearer a, Bearer b"), "", credential.Ambiguous},
		"J29 joined tightly":          {authorization("Bearer a,Bearer b"), "", credential.Ambiguous},
		"J29 token in query as well":  {good, "access_token=b", credential.Ambiguous},
		"J29 the same in query":       {good, "x=1&access_token=a", credential.Ambiguous},
		"J29 in query, empty":         {good, "access_token", credential.Ambiguous},
		"J29 in query, encoded":       {good, "a%63cess%5Ftoken=b", credential.Ambiguous},
		"J29 in query, other case":    {good, "Access_Token=b", credential.Ambiguous},
		"J29 in query, semicolon":     {good, "x=1;access_token=b", credential.Ambiguous},
		"J29 in query beside API key": {header{"x-api-key": {"k"}}, "access_token=b", credential.Ambiguous},
		"J29 in query alone":          {nil, "access_token=b", credential.Unsupported},
		"J29 two spaces":              {authorization("Bearer  a"), "", credential.Malformed},
		"J29 tab":                     {authorization("Bearer\ta"), "", credential.Unsupported},
		"J29 space and tab":           {authorization("Bearer \ta"), "", credential.Malformed},
		"J29 space before":            {authorization(" Bearer a"), "", credential.Unsupported},
		"J29 space after":             {authorization("Bearer a "), "", credential.Malformed},
		"J29 two words":               {authorization("Bearer a b"), "", credential.Malformed},
		"J29 not ASCII":               {authorization("Bearer \u00e4"), "", credential.Malformed},
		"J29 quoted":                  {authorization(`Bearer "a"`), "", credential.Malformed},
		"empty":                       {authorization(""), "", credential.Unsupported},
		"only the scheme":             {authorization("Bearer"), "", credential.Malformed},
		"no token":                    {authorization("Bearer "), "", credential.Malformed},
		"only padding":                {authorization("Bearer =="), "", credential.Malformed},
		"scheme as prefix":            {authorization("Bearera"), "", credential.Unsupported},
		"other scheme":                {authorization("DPoP a"), "", credential.Unsupported},
		"J28 too long":                {authorization("Bearer " + strings.Repeat("a", credential.MaxTokenSize+1)), "", credential.Malformed},
		"two ID tokens":               {header{"x-id-token": {"a", "b"}}, "", credential.Ambiguous},
		"joined ID tokens":            {header{"x-id-token": {"a,b"}}, "", credential.Ambiguous},
		"empty ID token":              {header{"x-id-token": {""}}, "", credential.Malformed},
		"ID token as bearer":          {header{"x-id-token": {"Bearer a"}}, "", credential.Malformed},
		"B07 two headers":             {header{"x-api-key": {"a", "a"}}, "", credential.Ambiguous},
		"B07 joined":                  {header{"x-api-key": {"a,a"}}, "", credential.Ambiguous},
		"B07 empty":                   {header{"x-api-key": {""}}, "", credential.Malformed},
		"B07 trailing newline":        {header{"x-api-key": {"a\n"}}, "", credential.Malformed},
		"B07 trailing space":          {header{"x-api-key": {"a "}}, "", credential.Malformed},
		"B03 empty, empty":            {authorization("Basic Og=="), "", credential.Malformed},
		"B03 empty password":          {encoded("alice:"), "", credential.Malformed},
		"B03 empty user":              {encoded(":secret"), "", credential.Malformed},
		"B03 no colon":                {encoded("alice"), "", credential.Malformed},
		"B03 NUL in password":         {encoded("alice:a\x00b"), "", credential.Malformed},
		"B03 newline in password":     {encoded("alice:secret\n"), "", credential.Malformed},
		"B03 not UTF-8":               {encoded("alice:\xff"), "", credential.Malformed},
		"B03 huge":                    {encoded("alice:" + strings.Repeat("a", 1<<20)), "", credential.Malformed},
		"B03 long":                    {encoded("alice:" + strings.Repeat("a", 1025)), "", credential.Malformed},
		"B03 bad base64":              {authorization("Basic YTpi!"), "", credential.Malformed},
		"B03 base64 without padding":  {authorization("Basic YTpiYw"), "", credential.Malformed},
		"B03 base64 with spare bits":  {authorization("Basic YTpiYx=="), "", credential.Malformed},
		"B03 base64url":               {authorization("Basic YTrDv8O_"), "", credential.Malformed},
		"B03 two spaces":              {authorization("BASIC  YTpi"), "", credential.Malformed},
		"B03 empty credentials":       {authorization("Basic "), "", credential.Malformed},
	} {
		if _, err := credential.Find(row.header.lines, row.query); !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", name, err, row.want)
		}
	}
}
