package mesh

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Authentication is what is demanded of whoever makes a request. At a gateway
// it speaks of credentials, at a service of those that a Passport was minted
// for.
type Authentication struct {
	// AnyOf are alternatives, of which one must be there as a whole. Empty lets
	// in nobody that is not Anonymous.
	AnyOf []Credentials
	// Anonymous lets in requests without any credential.
	Anonymous bool
	// Introspect asks the identity provider about each access token, JWTs
	// included; gateways only.
	Introspect bool
	// ACR are the authentication context classes of which the user's login must
	// have had one, AMR the methods of which all; MaxAge bounds its age. Nil and
	// zero demand nothing.
	ACR, AMR []string
	MaxAge   time.Duration
	// RegisteredClients refuses clients without an active Client document that
	// names the service; gateways only.
	RegisteredClients bool
	// Tenant refuses who is of no tenant.
	Tenant bool
}

// demands reports whether there is something that a user must have shown.
func (a Authentication) demands() bool {
	return !a.Anonymous && (len(a.AnyOf) > 0 || a.ACR != nil || a.AMR != nil || a.MaxAge > 0)
}

// Credentials are those that must be there together.
type Credentials struct {
	// AccessToken and IDToken name identity providers; empty demands none.
	AccessToken, IDToken string
	APIKey               bool
	// Basic names a Users document.
	Basic string
	// Certificate is nil where no client certificate is demanded.
	Certificate *CertificateRule
}

func (c Credentials) isZero() bool { return c == Credentials{} }

// CertificateRule says which client certificates are credentials: those that
// have one of the names, or one of the subjects. Services do not see
// certificates, so theirs has neither.
type CertificateRule struct {
	// Names are subject alternative names, as of [ClientCertificates].
	Names []string
	// Subjects are distinguished names (RFC 4514).
	Subjects []string
}

// authentication compiles what form demands. What it does not say is as in
// base: credentials as a whole, the rest one by one.
func (s scope) authentication(path string, form *authenticateForm, base Authentication) Authentication {
	if form == nil {
		return base
	}
	a := base
	written := func(key string) bool { return s.document.written(join(path, key)) }
	switch {
	case !form.credentials().isZero() || form.AnyOf != nil:
		a.AnyOf, a.Anonymous = s.alternatives(path, form), form.Anonymous
	case form.Anonymous:
		a.AnyOf, a.Anonymous = nil, true
	case written("anonymous"):
		a.Anonymous = false
	}
	if written("apiKey") && !form.APIKey {
		s.fault(join(path, "apiKey"), "demands nothing and forbids nothing: remove it, or write which credentials must be there")
	}
	if written("introspect") {
		a.Introspect = form.Introspect
	}
	if written("acr") {
		a.ACR = texts(form.ACR)
	}
	if written("amr") {
		a.AMR = texts(form.AMR)
	}
	if written("maxAge") {
		a.MaxAge = form.MaxAge.std()
	}
	if written("clients") {
		a.RegisteredClients = form.Clients == "registered"
	}
	if written("tenant") {
		a.Tenant = form.Tenant == "required"
	}
	s.demands(path, a)
	s.anonymous(path, form, a)
	return a
}

// anonymous refuses demands that whoever shows nothing gets around. Where
// anonymous stands alone, those of base are of no one: what anybody may see is
// written so.
func (s scope) anonymous(path string, form *authenticateForm, a Authentication) {
	var demands []string
	for _, d := range []struct {
		key   string
		there bool
	}{{"acr", a.ACR != nil}, {"amr", a.AMR != nil}, {"maxAge", a.MaxAge > 0}, {"clients", a.RegisteredClients}} {
		if d.there {
			demands = append(demands, d.key)
		}
	}
	written := func(key string) bool { return s.document.written(join(path, key)) }
	alone := form.Anonymous && len(a.AnyOf) == 0 && !slices.ContainsFunc(demands, written)
	if !a.Anonymous || alone || len(demands) == 0 {
		return
	}
	s.fault(path, "lets in whoever shows nothing, in spite of %s, since it is anonymous, here or by what it inherits: remove one or the other", strings.Join(demands, ", "))
}

// alternatives returns the credentials of form, one of which must be there.
func (s scope) alternatives(path string, form *authenticateForm) []Credentials {
	single := form.credentials()
	if form.AnyOf == nil {
		return []Credentials{s.credentials(path, single)}
	}
	if !single.isZero() {
		s.fault(path+".anyOf", "stands beside credentials, which are one alternative: write each alternative whole below anyOf")
	}
	all := make([]Credentials, len(form.AnyOf))
	for i, alternative := range form.AnyOf {
		path := fmt.Sprintf("%s.anyOf[%d]", path, i)
		if alternative.isZero() {
			s.fault(path, "demands no credential: write one, or remove it and write anonymous: true")
		}
		all[i] = s.credentials(path, alternative)
		if hides := func(other Credentials) bool { return s.hides(other, all[i]) }; !alternative.isZero() && slices.ContainsFunc(all[:i], hides) {
			s.fault(path, "is never taken, since whoever has these credentials takes anyOf[%d]: remove it, or put it before that one", slices.IndexFunc(all[:i], hides))
		}
	}
	return all
}

// hides reports whether a gateway takes c wherever it could take the later
// alternative: it goes by which credentials are there, and by who issued tokens.
// A certificate may be there in addition.
func (s scope) hides(c, later Credentials) bool {
	same := (c.AccessToken != "") == (later.AccessToken != "") && (c.IDToken != "") == (later.IDToken != "") &&
		c.APIKey == later.APIKey && (c.Basic != "") == (later.Basic != "") &&
		(c.Certificate == nil || later.Certificate != nil)
	if !same || s.document.ID.Kind != KindGateway {
		return false
	}
	one, other := s.issuerOf(c), s.issuerOf(later)
	return one == "" || other == "" || one == other
}

// issuerOf returns the issuer that tokens of c name, empty if there are none, or
// none that can be read.
func (s scope) issuerOf(c Credentials) string {
	document := s.documents.Get(DocumentID{KindIdentityProvider, cmp.Or(c.AccessToken, c.IDToken)})
	if document == nil {
		return ""
	}
	form := document.form.(*providerForm)
	if form.Tokens == "opaque" && c.AccessToken != "" {
		return ""
	}
	return form.Issuer
}

// demands checks that what is demanded of credentials can be told of them.
func (s scope) demands(path string, a Authentication) {
	s.introspected(path, a)
	if s.document.written(path+".tenant") && a.Tenant && !s.tenants {
		s.fault(path+".tenant", "refuses everybody: no document says which tenant anybody is of, such as claims.tenant of an IdentityProvider")
	}
	if s.document.ID.Kind != KindGateway {
		return // a Passport tells what the gateway knew, by whatever credential
	}
	for _, c := range a.AnyOf {
		token := c.AccessToken != "" || c.IDToken != ""
		if login := a.ACR != nil || a.AMR != nil || a.MaxAge > 0; login && !token && !c.isZero() {
			s.fault(path, "demands a login (acr, amr, maxAge), of which nothing but a token tells: demand a token in each alternative, or remove those")
		}
		if a.RegisteredClients && !token && !c.APIKey && !c.isZero() {
			s.fault(path, "demands a registered client, of which nothing but a token or an API key tells: demand one in each alternative, or remove clients")
		}
	}
}

func (s scope) credentials(path string, form credentialsForm) Credentials {
	c := Credentials{AccessToken: form.AccessToken, IDToken: form.IDToken, APIKey: form.APIKey, Basic: form.Basic}
	if c.AccessToken != "" {
		s.reference(path+".accessToken", c.AccessToken, KindIdentityProvider)
	}
	if c.IDToken != "" {
		s.idTokens(path+".idToken", c)
	}
	if c.Basic != "" {
		s.basic(path+".basic", c)
	}
	if rule := form.ClientCertificate; rule != nil {
		c.Certificate = &CertificateRule{Names: texts(rule.Names), Subjects: rule.Subjects}
		s.certificateRule(path+".clientCertificate", rule)
	}
	return c
}

func (s scope) basic(path string, c Credentials) {
	s.reference(path, c.Basic, KindUsers)
	_, isService := s.document.form.(*serviceForm)
	switch {
	case c.AccessToken != "":
		s.fault(path, "cannot be together with accessToken, which is in the same header: remove one, or write both below anyOf")
	case c.IDToken != "" && isService:
		s.fault(path, "cannot be demanded beside idToken by a service, since a Passport tells who vouches for its user, and not who knew a password besides: demand both at the gateway")
	}
}

// certificateRule checks that certificates are there at gateways, and that only
// they look into them.
func (s scope) certificateRule(path string, rule *certificateRuleForm) {
	for i, subject := range rule.Subjects {
		s.subject(fmt.Sprintf("%s.subjects[%d]", path, i), subject)
	}
	gateway, ok := s.document.form.(*gatewayForm)
	named := rule.Names != nil || rule.Subjects != nil
	switch {
	case !ok && named:
		s.fault(path, "names certificates, which services do not see: write clientCertificate: {} here, and the names at the gateway")
	case ok && !named:
		s.fault(path, "names no certificate: write names or subjects")
	case ok && !s.document.faulted("tls") && (gateway.TLS == nil || gateway.TLS.ClientCertificates == nil):
		s.fault(path, "is never there, since the gateway asks for none: write tls.clientCertificates, too")
	}
}

func (s scope) subject(path, subject string) {
	if s.options.CheckSubject == nil {
		return
	}
	if err := s.options.CheckSubject(subject); err != nil {
		s.fault(path, "%v: write it as in CN=till,O=Partner (RFC 4514)", err)
	}
}

// idTokens checks that a provider's ID tokens can be verified, and belong to
// the access tokens that are demanded with them.
func (s scope) idTokens(path string, c Credentials) {
	document := s.reference(path, c.IDToken, KindIdentityProvider)
	if document == nil {
		return
	}
	if form := document.form.(*providerForm); form.IDToken == nil && !document.faulted("idToken") {
		s.fault(path, "%s says of no client that its ID tokens are accepted: write idToken: {audiences: [CLIENT]} there", document.describe())
	}
	if c.AccessToken != "" && c.AccessToken != c.IDToken {
		s.fault(path, "must be of the same IdentityProvider as accessToken (%q), or they never belong together", c.AccessToken)
	}
}

// introspected checks that providers that shall be asked can be.
func (s scope) introspected(path string, a Authentication) {
	if !a.Introspect {
		return
	}
	idTokenAlone := slices.ContainsFunc(a.AnyOf, func(c Credentials) bool { return c.AccessToken == "" && c.IDToken != "" })
	asks := slices.ContainsFunc(a.AnyOf, func(c Credentials) bool { return c.AccessToken != "" })
	switch {
	case idTokenAlone:
		s.fault(path+".introspect", "asks about access tokens alone, and an ID token may come without one: demand accessToken beside each idToken, or remove it")
	case !asks && s.document.written(path+".introspect"):
		s.fault(path+".introspect", "asks about nothing, since no access token is demanded: write accessToken, or remove it")
	}
	for _, c := range a.AnyOf {
		id := DocumentID{KindIdentityProvider, c.AccessToken}
		document := s.documents.Get(id)
		if document == nil || document.faulted("introspection") {
			continue
		}
		if document.form.(*providerForm).Introspection == nil {
			s.fault(path+".introspect", "%s does not say how it is asked: write introspection there", document.describe())
		}
	}
}

func (form *authenticateForm) credentials() credentialsForm {
	return credentialsForm{form.AccessToken, form.IDToken, form.APIKey, form.Basic, form.ClientCertificate}
}

func (form credentialsForm) isZero() bool { return form == credentialsForm{} }

// hasTenants reports whether any document speaks of tenants. Where none does,
// there is nothing to demand.
func hasTenants(documents []*Document) bool {
	return slices.ContainsFunc(documents, func(document *Document) bool {
		switch form := document.form.(type) {
		case *providerForm:
			return form.Claims.Tenant != ""
		case *clientForm:
			return form.Tenant != ""
		case *apiKeyForm:
			return form.Tenant != ""
		case *usersForm:
			return slices.ContainsFunc(form.Users, func(u userForm) bool { return u.Tenant != "" })
		}
		return false
	})
}

// Who vouches for users that no identity provider knows, in place of its name.
// The colon keeps them apart from the names of documents.
const (
	SourceAPIKeys      = "chancery:api-keys" //nolint:gosec // a name
	SourceCertificates = "chancery:certificates"
)

// SourceUsers returns the same for a Users document.
func SourceUsers(name string) string { return "chancery:users/" + name }

// Source returns who vouches for the user: the first of the credentials that
// knows one.
func (c Credentials) Source() string {
	switch {
	case c.AccessToken != "":
		return c.AccessToken
	case c.IDToken != "":
		return c.IDToken
	case c.Basic != "":
		return SourceUsers(c.Basic)
	case c.APIKey:
		return SourceAPIKeys
	}
	return SourceCertificates
}

// Authentications returns all that are demanded on any route of g.
func (g *Gateway) Authentications() []Authentication {
	all := make([]Authentication, len(g.Routes))
	for i, r := range g.Routes {
		all[i] = r.Authentication
	}
	return all
}
