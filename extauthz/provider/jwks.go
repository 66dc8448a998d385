package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/chancery-mesh/chancery/breaker"
	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/internal/jose"
	"github.com/chancery-mesh/chancery/mesh"
)

// fetcher fetches what a provider publishes. It keeps the last answers, for
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
	Issuer        string `json:"issuer"`
	JWKSURI       string `json:"jwks_uri"`
	Introspection string `json:"introspection_endpoint"`
}

// forget makes the next fetch ask for all of it.
func (f *fetcher) forget() { f.ofMetadata, f.ofJWKS = breaker.Validator{}, breaker.Validator{} }

// fetch returns what the provider publishes, found by OpenID Connect Discovery
// 1.0: of its JWK Set, public halves of keys that can verify tokens; refused
// says what was left out.
func (f *fetcher) fetch(ctx context.Context) (published, []error, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	p, err := f.ask(ctx)
	if err != nil {
		f.forget()
	}
	return p, f.refused, err
}

func (f *fetcher) ask(ctx context.Context) (p published, err error) {
	if err := f.discover(ctx); err != nil {
		return p, err
	}
	if needsEndpoint(f.document) {
		if p.problem = checkEndpoint(f.metadata.Introspection, f.document); p.problem == nil {
			p.Introspection = f.metadata.Introspection
		}
	}
	if !needsKeys(f.document) {
		return p, nil
	}
	var raw json.RawMessage
	changed, err := f.client.GetChangedJSON(ctx, f.metadata.JWKSURI, &f.ofJWKS, &raw)
	if err == nil && changed {
		f.jwks, f.refused, err = publicKeys(raw)
	}
	p.JWKS, p.KeysURL = f.jwks, f.metadata.JWKSURI
	return p, err
}

// needsKeys reports whether any of the provider's tokens are JWTs.
func needsKeys(d *mesh.IdentityProvider) bool { return !d.Opaque || len(d.IDTokenAudiences) > 0 }

// needsEndpoint reports whether the provider is asked about tokens at an
// endpoint that it publishes.
func needsEndpoint(d *mesh.IdentityProvider) bool {
	return d.Introspection != nil && d.Introspection.Endpoint == ""
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
	if needsKeys(f.document) {
		if err := checkKeysURL(m.JWKSURI, f.document); err != nil {
			return err
		}
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
	host, err := checkURL("jwks_uri", keys, d.Issuer, d.JWKSHosts)
	if errors.Is(err, errOtherHost) {
		err = fmt.Errorf("%w: if it is meant, add jwksHosts: [%q] to the document", err, host)
	}
	return err
}

// checkEndpoint refuses another host than the issuer's, since that would get
// the client's secret, and tokens.
func checkEndpoint(endpoint string, d *mesh.IdentityProvider) error {
	_, err := checkURL("introspection_endpoint", endpoint, d.Issuer, nil)
	if err != nil {
		err = fmt.Errorf("%w: write introspection.endpoint in the document", err)
	}
	return err
}

var errOtherHost = errors.New("is on another host than the issuer")

// checkURL checks a URL of a discovery document, and returns its host.
func checkURL(member, text, issuer string, hosts []string) (host string, err error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil {
		return "", fmt.Errorf("%s %.200q is not a URL with a host", member, text)
	}
	from, err := url.Parse(issuer)
	if err != nil {
		return "", err
	}
	if u.Scheme != "https" && (u.Scheme != "http" || from.Scheme != "http") {
		return "", fmt.Errorf("%s %.200q is not https", member, text)
	}
	host = plainHost(u.Scheme, u.Host)
	named := func(other string) bool { return plainHost(u.Scheme, other) == host }
	if host != plainHost(from.Scheme, from.Host) && !slices.ContainsFunc(hosts, named) {
		return host, fmt.Errorf("%s %.200q %w", member, text, errOtherHost)
	}
	return host, nil
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
