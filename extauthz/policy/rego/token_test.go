package rego_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/chancery-mesh/chancery/extauthz/policy/rego"
)

// Whether a token is good, for whom and by which key, depends on nothing that was
// asked before.
func TestTokensAreVerifiedEachTime(t *testing.T) {
	t.Parallel()
	key, public := keyPair(t)
	_, other := keyPair(t)
	sign := func(claims jwt.MapClaims) string {
		t.Helper()
		token, err := jwt.NewWithClaims(jwt.SigningMethodES256, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	q := prepare(t, `allow := [valid, payload.sub] if {
		[valid, _, payload] := io.jwt.decode_verify(input.token, {"cert": input.key, "iss": input.iss, "aud": "shop"})
	} else := [valid, ""] if {
		[valid, _, _] := io.jwt.decode_verify(input.token, {"cert": input.key, "iss": input.iss, "aud": "shop"})
	}`, rego.Options{Timeout: 10 * time.Second})
	good := jwt.MapClaims{"iss": "idp", "aud": "shop", "sub": "ada", "exp": now.Add(time.Minute).Unix(), "nbf": now.Unix()}
	token := sign(good)
	for _, c := range []struct {
		name, token, key, iss string
		at                    time.Time
		valid                 bool
	}{
		{"the first time", token, public, "idp", now, true},
		{"again", token, public, "idp", now.Add(time.Second), true},
		{"when it has ended", token, public, "idp", now.Add(2 * time.Minute), false},
		{"before it begins", token, public, "idp", now.Add(-time.Minute), false},
		{"of another issuer", token, public, "other", now, false},
		{"by another key", token, other, "idp", now, false},
		{"with another signature", token[:len(token)-8] + "AAAAAAAA", public, "idp", now, false},
		{"with that again", token[:len(token)-8] + "AAAAAAAA", public, "idp", now, false},
		{"in the end", token, public, "idp", now, true},
	} {
		in := value(t, map[string]any{"token": c.token, "key": c.key, "iss": c.iss})
		got, err := q.Eval(t.Context(), in, c.at)
		if list, ok := got.([]any); err != nil || !ok || list[0] != c.valid {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}

func keyPair(t *testing.T) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}
