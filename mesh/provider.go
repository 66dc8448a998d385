package mesh

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

func (s scope) provider(form *providerForm) *IdentityProvider {
	s.url("issuer", form.Issuer, form)
	provider := &IdentityProvider{
		Name:      s.name(),
		Issuer:    form.Issuer,
		Audiences: form.Audiences,
		Claims: ClaimMapping{
			User: string(form.Claims.User), Groups: string(form.Claims.Groups),
			Tenant: string(form.Claims.Tenant), Client: string(form.Claims.Client),
		},
		Tenants:      form.Tenants,
		ClockSkew:    form.ClockSkew.std(),
		Refresh:      form.Refresh.std(),
		KeysMaxAge:   form.KeysMaxAge.std(),
		Opaque:       form.Tokens == "opaque",
		AllowPrivate: form.AllowPrivate,

		MaxTokenLifetime: form.MaxTokenLifetime.std(),
	}
	if form.Refresh > form.KeysMaxAge/2 {
		s.fault("refresh", "must be at most half of keysMaxAge, %s, or one failure makes the keys useless", form.KeysMaxAge.std())
	}
	if form.Tenants != nil && form.Claims.Tenant == "" {
		s.fault("tenants", "refuses all of its tokens, since none is of a tenant: write claims.tenant, the claim that has it")
	}
	for _, h := range form.JWKSHosts {
		provider.JWKSHosts = append(provider.JWKSHosts, string(h))
	}
	if form.IDToken != nil {
		provider.IDTokenAudiences = form.IDToken.Audiences
		for i, client := range form.IDToken.Audiences {
			if slices.Contains(form.Audiences, client) {
				s.fault(fmt.Sprintf("idToken.audiences[%d]", i), "is among audiences, too, so that one kind of token could pass for the other: let access tokens be for an API with a name of its own")
			}
		}
	}
	provider.Introspection = s.introspection(form)
	return provider
}

func (s scope) introspection(form *providerForm) *Introspection {
	i := form.Introspection
	if i == nil {
		if form.Tokens == "opaque" {
			s.fault("introspection", "is required with tokens: opaque: write {client: ID, secret: NAME}")
		}
		return nil
	}
	if i.Endpoint != "" {
		s.url("introspection.endpoint", i.Endpoint, form)
	}
	return &Introspection{Endpoint: i.Endpoint, Client: i.Client, Secret: string(i.Secret), Cache: i.Cache.std(), Rate: i.Rate}
}

// url checks what OpenID Connect Discovery 1.0, section 2, wants of issuers:
// https, no query and no fragment.
func (s scope) url(path, text string, form *providerForm) {
	u, err := url.Parse(text)
	switch {
	case err != nil && strings.Contains(text, "@"): // there may be a password in it
		s.fault(path, "is no URL: write one such as https://idp.example/realms/shop")
	case err != nil || u.Host == "" || u.Opaque != "":
		s.fault(path, "%q is no URL: write one such as https://idp.example/realms/shop", text)
	case u.User != nil:
		s.fault(path, "must not have a user or password in it: remove them")
	case strings.ContainsAny(text, "?#"):
		s.fault(path, "must not have a query or fragment: remove it")
	case u.Scheme == "https", u.Scheme == "http" && form.AllowHTTP:
		s.callable(path, u.Hostname(), form.AllowPrivate)
	case u.Scheme == "http":
		s.fault(path, "must be https, or whoever is on the way to it can forge tokens: for a test, set allowHTTP: true")
	default:
		s.fault(path, "must be https, not %q", u.Scheme)
	}
}

// callable checks a host that is written as an address. Names are judged by
// what they resolve to when they are called.
func (s scope) callable(path, host string, allowPrivate bool) {
	if strings.EqualFold(host, "localhost") {
		host = "127.0.0.1"
	}
	address, err := netip.ParseAddr(host)
	if err != nil {
		return
	}
	if err := CheckAddress(address, allowPrivate); err != nil {
		s.fault(path, "%s", err)
	}
}
