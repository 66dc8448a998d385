package mesh

import (
	"net/url"
	"strings"
)

func (s scope) provider(form *providerForm) *IdentityProvider {
	s.issuer(form)
	return &IdentityProvider{
		Name:       s.name(),
		Issuer:     form.Issuer,
		Audiences:  form.Audiences,
		Claims:     ClaimMapping(form.Claims),
		ClockSkew:  form.ClockSkew.std(),
		KeysMaxAge: form.KeysMaxAge.std(),
	}
}

// issuer checks OpenID Connect Discovery 1.0, section 2: https, no query and
// no fragment.
func (s scope) issuer(form *providerForm) {
	const path = "issuer"
	u, err := url.Parse(form.Issuer)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		s.fault(path, "%q is no URL: write the iss of its tokens, such as https://idp.example/realms/shop", form.Issuer)
	case u.User != nil:
		s.fault(path, "must not have a user or password in it: remove them")
	case strings.ContainsAny(form.Issuer, "?#"):
		s.fault(path, "must not have a query or fragment: remove it")
	case u.Scheme == "https", u.Scheme == "http" && form.AllowHTTP:
	case u.Scheme == "http":
		s.fault(path, "must be https, or whoever is on the way to it can forge tokens: for a test, set allowHTTP: true")
	default:
		s.fault(path, "must be https, not %q", u.Scheme)
	}
}
