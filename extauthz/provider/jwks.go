package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/chancery-mesh/chancery/breaker"
	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/internal/jose"
	"github.com/chancery-mesh/chancery/mesh"
)

// fetcher fetches the keys of one provider. It keeps the last answers, for
// providers that can say that nothing has changed.
type fetcher struct {
	document *mesh.IdentityProvider
	client   *breaker.Client

	metadata metadata
	jwks     []byte
	refused  []error
	// Validators of the two answers.
	ofMetadata, ofJWKS breaker.Validator
}

// metadata is what a discovery document is read for.
type metadata struct {
	Issuer  string `json:"issuer"`
	JWKSURI string `json:"jwks_uri"`
}

// forget makes the next fetch ask for all of it.
func (f *fetcher) forget() { f.ofMetadata, f.ofJWKS = breaker.Validator{}, breaker.Validator{} }

// fetch returns the JWK Set of the provider, found by OpenID Connect Discovery
// 1.0, as far as it can verify tokens: public halves alone. refused says what
// was left out.
func (f *fetcher) fetch(ctx context.Context) (jwks []byte, refused []error, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	if err := f.discover(ctx); err != nil {
		f.forget()
		return nil, nil, err
	}
	var raw json.RawMessage
	changed, err := f.client.GetChangedJSON(ctx, f.metadata.JWKSURI, &f.ofJWKS, &raw)
	if err == nil && changed {
		f.jwks, f.refused, err = publicKeys(raw)
	}
	if err != nil {
		f.forget()
		return nil, f.refused, err
	}
	return f.jwks, f.refused, nil
}

// discover reads the provider's metadata.
func (f *fetcher) discover(ctx context.Context) error {
	issuer := f.document.Issuer
	at := strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
	var m metadata
	changed, err := f.client.GetChangedJSON(ctx, at, &f.ofMetadata, &m)
	if err != nil || !changed {
		return err
	}
	if m.Issuer != issuer { // section 4.3
		return fmt.Errorf("discovery document is of issuer %.200q, not of %q", m.Issuer, issuer)
	}
	if err := checkKeysURL(m.JWKSURI, f.document); err != nil {
		return err
	}
	if m.JWKSURI != f.metadata.JWKSURI {
		f.ofJWKS = breaker.Validator{}
	}
	f.metadata = m
	return nil
}

// checkKeysURL refuses a way to the keys that is weaker than the way to the
// issuer, which the document chose, or that leads to where it did not say.
func checkKeysURL(keys string, d *mesh.IdentityProvider) error {
	u, err := url.Parse(keys)
	if err != nil || u.Host == "" || u.User != nil {
		return fmt.Errorf("jwks_uri %.200q is not a URL with a host", keys)
	}
	issuer, err := url.Parse(d.Issuer)
	if err != nil {
		return err
	}
	if u.Scheme != "https" && (u.Scheme != "http" || issuer.Scheme != "http") {
		return fmt.Errorf("jwks_uri %.200q is not https", keys)
	}
	named := func(host string) bool { return plainHost(u.Scheme, host) == plainHost(u.Scheme, u.Host) }
	if plainHost(u.Scheme, u.Host) != plainHost(issuer.Scheme, issuer.Host) && !slices.ContainsFunc(d.JWKSHosts, named) {
		return fmt.Errorf("jwks_uri %.200q is on another host than the issuer: if it is meant, add jwksHosts: [%q] to the document", keys, u.Host)
	}
	return nil
}

// plainHost returns the host of a URL without the port that its scheme has
// anyway.
func plainHost(scheme, host string) string {
	port := map[string]string{"https": ":443", "http": ":80"}[scheme]
	return strings.TrimSuffix(strings.ToLower(host), port)
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
