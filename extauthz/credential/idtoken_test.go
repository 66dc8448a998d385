package credential_test

import (
	"crypto"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/extauthz/credential"
)

func idTokenVerifier(t testing.TB, clients ...string) *credential.Verifier {
	t.Helper()
	v, err := credential.NewIDTokenVerifier(provider(t), clients)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// idToken returns an ID token for client web, changed as alter does.
func idToken(t testing.TB, pairs ...any) string {
	t.Helper()
	return alter(t, append([]any{"header.typ", "JWT", "aud", "web"}, pairs...)...)
}

func TestIDToken(t *testing.T) {
	t.Parallel()
	v := idTokenVerifier(t, "web", "app")
	for name, row := range map[string]struct {
		token, client string
	}{
		"least":            {idToken(t), "web"},
		"untyped":          {idToken(t, "header.typ", nil), "web"},
		"of Keycloak":      {idToken(t, "typ", "ID", "azp", "web", "scope", "openid"), "web"},
		"of Cognito":       {idToken(t, "token_use", "id"), "web"},
		"with nonce":       {idToken(t, "nonce", "n", "at_hash", "h", "c_hash", "h"), "web"},
		"list of one":      {idToken(t, "aud", []string{"web"}), "web"},
		"two of ours":      {idToken(t, "aud", []string{"web", "app"}, "azp", "app"), "app"},
		"party beside aud": {idToken(t, "azp", "app"), "app"},
		"azp goes first":   {idToken(t, "azp", "app", "client_id", "other"), "app"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id, err := v.Verify(row.token, now, nil)
			if err != nil || id.Kind != credential.KindIDToken || id.User != "alice" || id.Client != row.client {
				t.Errorf("%+v, %v", id, err)
			}
		})
	}
	id, err := v.Verify(idToken(t, "jti", "7f3c", "acr", "urn:mfa", "amr", []string{"pwd", "otp"}, "auth_time", now.Unix()-60), now, nil)
	want := &credential.Identity{
		Kind: credential.KindIDToken, Provider: "staff", User: "alice", Client: "web", Issuer: "https://idp.test/", Subject: "alice",
		ID: "7f3c", IssuedAt: now, ACR: "urn:mfa", AMR: []string{"pwd", "otp"}, AuthTime: now.Add(-time.Minute),
		ValidUntil: now.Add(310 * time.Second),
	}
	if diff := cmp.Diff(want, id, unbound); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

// Attack rows C07, C08 and C10, and OpenID Connect Core section 3.1.3.7.
func TestTokenTypes(t *testing.T) {
	t.Parallel()
	access, id := verifier(t, provider(t)), idTokenVerifier(t, "web")
	const ours = "accepted"
	for name, row := range map[string]struct {
		pairs              []any
		wantAccess, wantID credential.Reason
	}{
		"C10 at+jwt":             {[]any{"header.typ", "at+jwt"}, ours, credential.WrongType},
		"C10 AT+JWT":             {[]any{"header.typ", "AT+JWT"}, ours, credential.WrongType},
		"C10 application/at+jwt": {[]any{"header.typ", "application/at+jwt"}, ours, credential.WrongType},
		"C10 JWT":                {[]any{"header.typ", "JWT"}, ours, ours},
		"C10 jwt":                {[]any{"header.typ", "jwt"}, ours, ours},
		"C10 none":               {[]any{"header.typ", nil}, ours, ours},
		"C10 a number":           {[]any{"header.typ", 1}, credential.Malformed, credential.Malformed},
		"C10 passport":           {[]any{"header.typ", "txntoken+jwt"}, credential.WrongType, credential.WrongType},
		"C10 passport+jwt":       {[]any{"header.typ", "passport+jwt"}, credential.WrongType, credential.WrongType},
		"C10 logout":             {[]any{"header.typ", "logout+jwt"}, credential.WrongType, credential.WrongType},
		"C10 dpop":               {[]any{"header.typ", "dpop+jwt"}, credential.WrongType, credential.WrongType},
		"C10 secevent":           {[]any{"header.typ", "secevent+jwt"}, credential.WrongType, credential.WrongType},
		"C10 untyped logout": {
			[]any{"header.typ", nil, "events", map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}},
			credential.WrongType, credential.WrongType,
		},
		"C07 nonce":                  {[]any{"header.typ", "JWT", "nonce", "n"}, credential.WrongType, ours},
		"C07 at_hash":                {[]any{"header.typ", "JWT", "at_hash", "h"}, credential.WrongType, ours},
		"C07 c_hash":                 {[]any{"header.typ", nil, "c_hash", "h"}, credential.WrongType, ours},
		"C07 Keycloak":               {[]any{"header.typ", "JWT", "typ", "ID"}, credential.WrongType, ours},
		"C07 Cognito":                {[]any{"header.typ", nil, "token_use", "id"}, credential.WrongType, ours},
		"C07 Keycloak, marked twice": {[]any{"header.typ", "JWT", "typ", "ID", "token_use", "access"}, credential.WrongType, credential.WrongType},
		"C08 scope":                  {[]any{"header.typ", "JWT", "scope", "read"}, ours, credential.WrongType},
		"C08 scp":                    {[]any{"header.typ", "JWT", "scp", []string{"read"}}, ours, credential.WrongType},
		"C08 Keycloak":               {[]any{"header.typ", "JWT", "typ", "Bearer", "nonce", "n"}, ours, credential.WrongType},
		"C08 Cognito":                {[]any{"header.typ", nil, "token_use", "access"}, ours, credential.WrongType},
		"Keycloak's refresh token":   {[]any{"header.typ", "JWT", "typ", "Refresh"}, credential.WrongType, credential.WrongType},
		"Keycloak's offline token":   {[]any{"header.typ", "JWT", "typ", "Offline"}, credential.WrongType, credential.WrongType},
		"marked by a list":           {[]any{"header.typ", "JWT", "typ", []string{"Bearer", "ID"}}, credential.WrongType, credential.WrongType},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for v, want := range map[*credential.Verifier]credential.Reason{access: row.wantAccess, id: row.wantID} {
				audience := "shop-api"
				if v == id {
					audience = "web"
				}
				_, err := v.Verify(alter(t, append([]any{"aud", audience}, row.pairs...)...), now, nil)
				if got := reason(err); got != want {
					t.Errorf("for %s: %v, want %v", audience, got, want)
				}
			}
		})
	}
	// Whatever else they have, the two are for different audiences.
	if _, err := access.Verify(idToken(t), now, nil); !errors.Is(err, credential.WrongAudience) {
		t.Errorf("C07 without marks: %v", err)
	}
	if _, err := id.Verify(alter(t, "header.typ", "JWT"), now, nil); !errors.Is(err, credential.WrongAudience) {
		t.Errorf("C08 without marks: %v", err)
	}
	if _, err := credential.NewIDTokenVerifier(provider(t), []string{"web", "shop-web"}); err == nil {
		t.Error("one audience for both kinds: accepted")
	}
}

// reason of an error, or "accepted".
func reason(err error) credential.Reason {
	var r credential.Reason
	if err != nil && !errors.As(err, &r) {
		return credential.Reason("no reason: " + err.Error())
	}
	if err == nil {
		return "accepted"
	}
	return r
}

func TestIDTokenRefused(t *testing.T) {
	t.Parallel()
	v := idTokenVerifier(t, "web", "app")
	for name, row := range map[string]struct {
		token string
		want  credential.Reason
	}{
		"other issuer":            {idToken(t, "iss", "https://evil.test/"), credential.WrongIssuer},
		"other audience":          {idToken(t, "aud", "other"), credential.WrongAudience},
		"no audience":             {idToken(t, "aud", nil), credential.WrongAudience},
		"empty audiences":         {idToken(t, "aud", []string{}), credential.WrongAudience},
		"audience not trusted":    {idToken(t, "aud", []string{"web", "other"}, "azp", "web"), credential.WrongAudience},
		"audience a number":       {idToken(t, "aud", []any{"web", 1}, "azp", "web"), credential.WrongAudience},
		"two without a party":     {idToken(t, "aud", []string{"web", "app"}), credential.WrongAudience},
		"party not ours":          {idToken(t, "azp", "other"), credential.WrongAudience},
		"party empty":             {idToken(t, "azp", ""), credential.WrongAudience},
		"party a list":            {idToken(t, "azp", []string{"web"}), credential.WrongAudience},
		"no iat":                  {idToken(t, "iat", nil), credential.Malformed},
		"no exp":                  {idToken(t, "exp", nil), credential.Malformed},
		"expired":                 {idToken(t, "exp", now.Unix()-11), credential.Expired},
		"issued in the future":    {idToken(t, "iat", now.Unix()+11), credential.NotYetValid},
		"no user":                 {idToken(t, "sub", nil), credential.BadClaim},
		"at_hash a number":        {idToken(t, "at_hash", 1), credential.BadClaim},
		"at_hash empty":           {idToken(t, "at_hash", ""), credential.BadClaim},
		"jti a number":            {idToken(t, "jti", 7), credential.BadClaim},
		"jti with a line break":   {idToken(t, "jti", "a\nb"), credential.BadClaim},
		"bound":                   {idToken(t, "cnf", map[string]any{"jkt": "A"}), credential.Bound},
		"signed with another key": {idToken(t, "header.kid", "RS256"), credential.WrongAlgorithm},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if id, err := v.Verify(row.token, now, nil); !errors.Is(err, row.want) || id != nil {
				t.Errorf("%v, %v, want %v", id, err, row.want)
			}
		})
	}
}

// What is not in the standard's form is no login.
func TestLoginInOtherForms(t *testing.T) {
	t.Parallel()
	id, err := idTokenVerifier(t, "web").Verify(idToken(t, "acr", 2, "amr", "mfa", "auth_time", "2026-01-01T00:00:00Z"), now, nil)
	if err != nil || id.ACR != "" || id.AMR != nil || !id.AuthTime.IsZero() {
		t.Errorf("%+v, %v", id, err)
	}
}

func atHash(h crypto.Hash, token string) string {
	digest := h.New()
	digest.Write([]byte(token))
	sum := digest.Sum(nil)
	return base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
}

func TestMatch(t *testing.T) {
	t.Parallel()
	access, id := verifier(t, provider(t)), idTokenVerifier(t, "web", "app")
	accessToken := alter(t, "client_id", "web", "tenant", "acme")
	hash := atHash(crypto.SHA256, accessToken)
	other := provider(t)
	other.Issuer = "https://other.test/"
	for name, row := range map[string]struct {
		access, id string
		want       credential.Reason
	}{
		"with at_hash":            {accessToken, idToken(t, "at_hash", hash), "accepted"},
		"without":                 {accessToken, idToken(t), "accepted"},
		"azp":                     {alter(t, "azp", "web"), idToken(t), "accepted"},
		"Entra's appid":           {alter(t, "appid", "web"), idToken(t), "accepted"},
		"Okta's cid":              {alter(t, "cid", "web"), idToken(t), "accepted"},
		"azp of both":             {alter(t, "azp", "app"), idToken(t, "azp", "app"), "accepted"},
		"same tenant":             {accessToken, idToken(t, "tenant", "acme"), "accepted"},
		"at_hash of another":      {accessToken, idToken(t, "at_hash", atHash(crypto.SHA256, accessToken+"x")), credential.Mismatch},
		"at_hash of other hash":   {accessToken, idToken(t, "at_hash", atHash(crypto.SHA512, accessToken)), credential.Mismatch},
		"at_hash with more":       {accessToken, idToken(t, "at_hash", hash+"A"), credential.Mismatch},
		"at_hash with padding":    {accessToken, idToken(t, "at_hash", hash+"=="), credential.Mismatch},
		"of another user":         {accessToken, idToken(t, "sub", "bob"), credential.Mismatch},
		"of a user in other case": {accessToken, idToken(t, "sub", "Alice"), credential.Mismatch},
		"for another client":      {accessToken, idToken(t, "aud", "app"), credential.Mismatch},
		"for another party":       {accessToken, idToken(t, "azp", "app"), credential.Mismatch},
		"of a client unknown":     {alter(t), idToken(t), credential.Mismatch},
		"C17 of other tenants":    {accessToken, idToken(t, "tenant", "umbrella"), credential.Mismatch},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, err := access.Verify(row.access, now, nil)
			i, err2 := id.Verify(row.id, now, nil)
			if err := errors.Join(err, err2); err != nil {
				t.Fatal(err)
			}
			if got := reason(credential.Match(a, i, row.access)); got != row.want {
				t.Errorf("%v, want %v", got, row.want)
			}
			if credential.Match(i, a, row.access) == nil || credential.Match(a, a, row.access) == nil || credential.Match(i, i, row.access) == nil {
				t.Error("kinds exchanged: accepted")
			}
		})
	}
	a, err := verifier(t, other).Verify(alter(t, "iss", other.Issuer, "client_id", "web"), now, nil)
	i, err2 := id.Verify(idToken(t), now, nil)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	if err := credential.Match(a, i, ""); !errors.Is(err, credential.Mismatch) {
		t.Errorf("of other issuers: %v", err)
	}
}

// What names the user in documents does not make two subjects one.
func TestMatchBySubject(t *testing.T) {
	t.Parallel()
	p := provider(t)
	p.Claims.User = "login"
	id, err := credential.NewIDTokenVerifier(p, []string{"web"})
	if err != nil {
		t.Fatal(err)
	}
	a, err := verifier(t, p).Verify(alter(t, "client_id", "web", "login", "al"), now, nil)
	if err != nil {
		t.Fatal(err)
	}
	for subject, want := range map[any]credential.Reason{"alice": "accepted", "alice2": credential.Mismatch, nil: credential.Mismatch} {
		i, err := id.Verify(idToken(t, "login", "al", "sub", subject), now, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := reason(credential.Match(a, i, "")); got != want {
			t.Errorf("%v: %v, want %v", subject, got, want)
		}
	}
}

// The hash is that of the ID token's algorithm.
func TestMatchByAlgorithm(t *testing.T) {
	t.Parallel()
	access, id := verifier(t, provider(t)), idTokenVerifier(t, "web")
	accessToken := alter(t, "client_id", "web")
	a, err := access.Verify(accessToken, now, nil)
	if err != nil {
		t.Fatal(err)
	}
	for alg, h := range map[string]crypto.Hash{
		"ES256": crypto.SHA256, "RS256": crypto.SHA256, "PS256": crypto.SHA256,
		"ES384": crypto.SHA384, "RS384": crypto.SHA384, "PS384": crypto.SHA384,
		"ES512": crypto.SHA512, "RS512": crypto.SHA512, "PS512": crypto.SHA512, "EdDSA": crypto.SHA512,
	} {
		for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			k := newToken()
			k.algorithm, k.key, k.header["kid"], k.header["typ"] = alg, keys()[alg], alg, "JWT"
			k.claims["aud"], k.claims["at_hash"] = "web", atHash(hash, accessToken)
			i, err := id.Verify(k.sign(t), now, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := credential.Match(a, i, accessToken); (err == nil) != (hash == h) {
				t.Errorf("%s with %v: %v", alg, hash, err)
			}
		}
	}
}

// A token of one kind is not taken from the cache for the other.
func TestCacheKeepsKindsApart(t *testing.T) {
	t.Parallel()
	c := credential.NewCache(8)
	p := provider(t)
	p.Audiences = []string{"web"}
	access := verifier(t, p)
	token := idToken(t)
	if _, err := c.Verify(access, token, now, nil); err != nil {
		t.Fatal(err)
	}
	if id, err := c.Verify(idTokenVerifier(t, "web"), token, now, nil); err != nil || id.Kind != credential.KindIDToken {
		t.Errorf("%v, %v", id, err)
	}
	if _, err := c.Verify(idTokenVerifier(t, "app"), token, now, nil); !errors.Is(err, credential.WrongAudience) {
		t.Errorf("for another client: %v", err)
	}
}

// Attack row C16.
func TestClaimPath(t *testing.T) {
	t.Parallel()
	token := alter(t, "a.b", "flat", "a", map[string]any{"b": "nested", "c/d": "slash", "~": "tilde", "n": 1}, "/x", "rooted",
		"https://x/y", "URL", "realm_access", map[string]any{"roles": []string{"sales", "ops"}})
	for path, want := range map[string]string{
		"a.b": "flat", "/a/b": "nested", "/a~1b": "", "/a.b": "flat", "/a/c~1d": "slash", "/a/~0": "tilde", "/~1x": "rooted",
		"https://x/y": "URL", "/a/b/c": "", "/a/x": "", "a": "bad", "/a/n": "bad", "x": "", "/sub": "alice",
	} {
		p := provider(t)
		p.Claims.Tenant, p.Claims.Groups = path, "/realm_access/roles"
		id, err := verifier(t, p).Verify(token, now, nil)
		switch {
		case want == "bad":
			if !errors.Is(err, credential.BadClaim) {
				t.Errorf("C16 %s: %v, %v", path, id, err)
			}
		case err != nil || id.Tenant != want || strings.Join(id.Groups, " ") != "sales ops":
			t.Errorf("C16 %s: %+v, %v, want %q", path, id, err, want)
		}
	}
	for _, path := range []string{"/", "//a", "/a/", "/a~", "/a~2b"} {
		p := provider(t)
		p.Claims.User = path
		if _, err := credential.NewVerifier(p); err == nil {
			t.Errorf("%q is a path", path)
		}
	}
}

// Tokens as real providers write them.
func TestProviders(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		pairs          []any
		client, scopes string
	}{
		"RFC 9068":  {[]any{"client_id", "web", "scope", "read write"}, "web", "read write"},
		"Keycloak":  {[]any{"header.typ", "JWT", "typ", "Bearer", "azp", "web", "scope", "openid email", "acr", "1"}, "web", "openid email"},
		"Entra v1":  {[]any{"header.typ", "JWT", "appid", "web", "appidacr", "1", "scp", "read write", "ver", "1.0"}, "web", "read write"},
		"Entra v2":  {[]any{"header.typ", "JWT", "azp", "web", "azpacr", "1", "scp", "read", "roles", []string{"r"}, "ver", "2.0"}, "web", "read"},
		"Auth0":     {[]any{"header.typ", "JWT", "azp", "web", "scope", "read"}, "web", "read"},
		"Okta":      {[]any{"header.typ", nil, "cid", "web", "uid", "u", "scp", []string{"read", "write"}}, "web", "read write"},
		"both ways": {[]any{"scope", "read", "scp", []string{"write"}}, "", "read"},
		"an object": {[]any{"scp", map[string]any{}}, "", "bad"},
	} {
		id, err := verifier(t, provider(t)).Verify(alter(t, row.pairs...), now, nil)
		if row.scopes == "bad" {
			if !errors.Is(err, credential.BadClaim) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || id.Client != row.client || strings.Join(id.Scopes, " ") != row.scopes {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
	}
}
