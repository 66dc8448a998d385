package controlplane

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/chancery-mesh/chancery/breaker"
	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/internal/jose"
)

// fetchKeys returns the JWK Set of an issuer, found by OpenID Connect
// Discovery 1.0, as far as it can verify tokens: public halves alone. refused
// says what was left out.
func fetchKeys(ctx context.Context, client *breaker.Client, issuer string) (jwks []byte, refused []error, err error) {
	var metadata struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	at := strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
	if err := client.GetJSON(ctx, at, &metadata); err != nil {
		return nil, nil, err
	}
	if metadata.Issuer != issuer { // section 4.3
		return nil, nil, fmt.Errorf("discovery document is of issuer %.200q, not of %q", metadata.Issuer, issuer)
	}
	if err := checkKeysURL(metadata.JWKSURI, issuer); err != nil {
		return nil, nil, err
	}
	var raw json.RawMessage
	if err := client.GetJSON(ctx, metadata.JWKSURI, &raw); err != nil {
		return nil, nil, err
	}
	return publicKeys(raw)
}

// checkKeysURL refuses a way to the keys that is weaker than the way to the
// issuer, which a document chose.
func checkKeysURL(keys, issuer string) error {
	u, err := url.Parse(keys)
	if err != nil || u.Host == "" || u.User != nil {
		return fmt.Errorf("jwks_uri %.200q is not a URL with a host", keys)
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !strings.HasPrefix(issuer, "http://")) {
		return fmt.Errorf("jwks_uri %.200q is not https", keys)
	}
	return nil
}

// publicMembers are the members of JWKs that verifiers need (RFC 7517, 7518,
// 8037). Whatever else an issuer publishes stays here.
var publicMembers = []string{"kty", "kid", "use", "key_ops", "alg", "crv", "x", "y", "n", "e"}

// publicKeys keeps the keys of a JWK Set that can verify tokens, and of these
// the public members.
func publicKeys(raw []byte) (jwks []byte, refused []error, err error) {
	members, err := jose.ParseSet(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("parse JWK set: %w", err)
	}
	keys := []map[string]any{}
	for i, m := range members {
		if _, err := jose.ParseKey(m); err != nil {
			refused = append(refused, fmt.Errorf("keys[%d]: %w", i, err))
			continue
		}
		key := map[string]any{}
		for _, name := range publicMembers {
			if value, ok := m[name]; ok {
				key[name] = value
			}
		}
		keys = append(keys, key)
	}
	jwks, err = json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		return nil, refused, fmt.Errorf("encode JWK set: %w", err)
	}
	_, ambiguous, err := credential.ParseKeySet(jwks)
	return jwks, append(refused, ambiguous...), err
}
