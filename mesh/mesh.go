// Package mesh holds the documents that operators write and the model that the
// rest of Chancery runs on.
//
// Documents are YAML, several to a file, many files to a directory. [ReadDir]
// decodes them strictly, [Documents.Compile] validates them together and
// returns an immutable [Mesh], and [Watch] keeps doing both while the
// directory changes. Every fault is reported at once, each as
//
//	file:line:column: path: what is wrong and how to mend it
//
// The package knows nothing of Envoy, Consul or the network, and imports
// nothing of the project.
package mesh

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Kind is the kind of a document.
type Kind string

// The kinds of documents.
const (
	KindMesh             Kind = "Mesh"
	KindIdentityProvider Kind = "IdentityProvider"
	KindGateway          Kind = "Gateway"
	KindService          Kind = "Service"
	KindClient           Kind = "Client"
	KindAPIKey           Kind = "APIKey"
	KindUsers            Kind = "Users"
	KindRoles            Kind = "Roles"
	KindData             Kind = "Data"
	KindRego             Kind = "Rego"
)

// DocumentID names one document of a mesh.
type DocumentID struct {
	Kind Kind
	Name string
}

// String returns "Kind/name".
func (id DocumentID) String() string { return string(id.Kind) + "/" + id.Name }

// Position is where in the documents something stands. Line and Column count
// from 1.
type Position struct {
	File   string
	Line   int
	Column int
}

// Mesh is the validated whole of the documents. It is immutable and always
// valid; only [Documents.Compile] makes one.
type Mesh struct {
	Name        string
	TrustDomain string
	// PassportLifetime is how long a Passport is valid.
	PassportLifetime time.Duration
	Certificates     CertificateLifetimes
	// Decisions are those beside services.
	Decisions Decisions
	// Sorted by name.
	Providers []*IdentityProvider
	Gateways  []*Gateway
	Services  []*Service
	Clients   []*Client
	APIKeys   []*APIKey
	Users     []*Users
	Data      []*Data
	Rego      []*Rego
	// Roles of all Roles documents, sorted by name.
	Roles []Role
}

// CertificateLifetimes say how long new certificates are good.
type CertificateLifetimes struct {
	// Leaf is for workloads, Authority for what signs those, Root for what
	// signs that. None is longer than the next.
	Leaf, Authority, Root time.Duration
}

// IdentityProvider issues tokens to users and clients.
type IdentityProvider struct {
	Name string
	// Issuer is compared byte by byte with a token's `iss`; its discovery
	// document (OpenID Connect Discovery 1.0) is where the keys are found.
	Issuer    string
	Audiences []string
	Claims    ClaimMapping
	// ClockSkew is tolerated on `exp`, `nbf` and `iat`.
	ClockSkew time.Duration
	// Refresh is how often the keys are fetched.
	Refresh time.Duration
	// MaxTokenLifetime bounds how long tokens live, from `iat` to `exp`.
	MaxTokenLifetime time.Duration
	// Tenants that it may speak for; empty is any, and users without one.
	Tenants []string
	// KeysMaxAge bounds the use of keys that could not be fetched again.
	KeysMaxAge time.Duration
	// JWKSHosts are hosts beside the issuer's where the keys may be.
	JWKSHosts []string
	// AllowPrivate lets it have private addresses: see [CheckAddress].
	AllowPrivate bool
	// IDTokenAudiences are the clients whose ID tokens are accepted; empty
	// accepts none.
	IDTokenAudiences []string
	// Opaque says that its access tokens are no JWTs, but asked about.
	Opaque bool
	// Introspection is nil where the provider is never asked.
	Introspection *Introspection
}

// Introspection says how a provider is asked about tokens (RFC 7662).
type Introspection struct {
	// Endpoint is a URL, empty for the discovered one.
	Endpoint string
	// Client is the id that the PDP asks as, and Secret the name of its secret.
	Client, Secret string
	// Cache bounds how long an answer is believed.
	Cache time.Duration
	// Rate bounds how often one PDP asks, per second.
	Rate uint32
}

// ClaimMapping names the claims that the identity is read from.
type ClaimMapping struct {
	User, Groups, Tenant, Client string
}

// Profile says how exposed a gateway is.
type Profile string

// The profiles of gateways.
const (
	ProfilePublic     Profile = "public"
	ProfileSemiPublic Profile = "semi-public"
	ProfilePrivate    Profile = "private"
)

// Gateway is an Envoy at the edge.
type Gateway struct {
	Name    string
	Profile Profile
	Listen  netip.AddrPort
	// TLS is nil where clients are served in the clear.
	TLS *GatewayTLS
	// Tenants whose users may come in; empty is any, and users without one.
	Tenants []string
	// Authentication of routes that say nothing else.
	Authentication Authentication
	Answers
	Decisions Decisions
	// PeerLimit bounds the requests of one client address before anything is
	// authenticated.
	PeerLimit RateLimit
	Routes    []GatewayRoute
}

// GatewayTLS is how a gateway speaks TLS with clients.
type GatewayTLS struct {
	// Certificates names server certificates, at least one; the first serves
	// where no other has the client's host name.
	Certificates []string
	// MinVersion is "1.2" or "1.3".
	MinVersion string
	// Clients is nil where clients are asked for no certificate.
	Clients *ClientCertificates
}

// ClientCertificates says which clients' certificates are good.
type ClientCertificates struct {
	// Trust names the bundle of who signs them.
	Trust string
	// Required refuses clients without a certificate.
	Required bool
	// Names are subject alternative names, one of which a certificate must
	// have, byte for byte; empty is any. One that begins with a scheme is a
	// URI, another with "@" an email address, any other a DNS name.
	Names []string
}

// GatewayRoute sends what matches to a service. In the order written, the
// first that matches wins.
type GatewayRoute struct {
	// Name is unique in the gateway; "route-<n>" by its place, from 0, where none is
	// written.
	Name  string
	Match Match
	// To is a service's name, or "{variable}" of Match.Path: any service
	// which names this gateway in `callers` of at least one route.
	To string
	// Rewrite is what the service sees instead of Match.Path; zero leaves the
	// path alone. Both end in "/**", which stands for the same rest.
	Rewrite Pattern
	// Allow is a CEL expression; empty means that a valid credential is
	// enough at the gateway (the service still decides for itself).
	Allow string
	// AllowPosition is where Allow stands.
	AllowPosition Position
	// Rego must allow, too; nil asks no policy.
	Rego      *RegoRule
	RateLimit *RateLimit
	// Authentication that it demands.
	Authentication Authentication
	// Bind are facts of the call that its Passports carry: CEL expressions for
	// strings, by name.
	Bind map[string]string
	// MaxBody is how much of a body is shown to the rule, in bytes; more is
	// refused, and zero shows none.
	MaxBody uint32
}

// ID identifies the route to those who enforce and decide it: its name, what it
// matches, and where it leads. A name alone may move to other requests, or to
// another service, from one version of the document to the next, and so would a
// decision that is asked for by the old and made by the new.
func (r GatewayRoute) ID() string {
	id := r.Name + " " + r.Match.String() + " to " + r.To
	if !r.Rewrite.IsZero() {
		id += r.Rewrite.String()
	}
	return id
}

// Match selects requests.
type Match struct {
	// Method is an HTTP method in upper case, as [MethodMatches] has it; empty
	// matches any.
	Method string
	Path   Pattern
}

// MethodMatches reports whether requests with a method are among those of a
// route's: all if that is empty, and HEAD with GET, since it asks for the same
// without the body (RFC 9110, section 9.3.2).
func MethodMatches(routes, method string) bool {
	return routes == "" || routes == method || routes == "GET" && method == "HEAD"
}

// Tier is a service's place in API-led connectivity.
type Tier string

// The tiers of services.
const (
	TierExperience Tier = "experience"
	TierProcess    Tier = "process"
	TierSystem     Tier = "system"
)

// MTLS says how a service is reached by others.
type MTLS string

// The ways to reach a service.
const (
	// MTLSStrict reaches instances at their `mesh` address only.
	MTLSStrict MTLS = "strict"
	// MTLSPermissive is MTLSStrict for the mesh, and lets others in in the
	// clear as Service.Plaintext says.
	MTLSPermissive MTLS = "permissive"
	// MTLSOff reaches instances in the clear: at their `mesh` address if there
	// is Service.Plaintext, else at their service address.
	MTLSOff MTLS = "off"
)

// Service is a name in the registry that the mesh protects.
type Service struct {
	Name string
	Tier Tier
	MTLS MTLS
	// Plaintext is set with MTLSPermissive, may be with MTLSOff, and is nil
	// with MTLSStrict.
	Plaintext *Plaintext
	// Uses names the upstreams that the service's sidecar offers it.
	Uses []string
	// Gateways names the gateways whose Passports the service takes, sorted.
	Gateways []string
	Answers
	Routes []Route
}

// HasSidecar reports whether instances are reached at their sidecars, and not
// past them.
func (s *Service) HasSidecar() bool { return s.MTLS != MTLSOff || s.Plaintext != nil }

// TakesClearPassport reports whether Passports may go to s over connections in
// the clear.
func (s *Service) TakesClearPassport() bool { return s.Plaintext != nil && s.Plaintext.Passport }

// Plaintext says which connections in the clear a sidecar takes.
type Plaintext struct {
	// From are the networks that they may come from, at least one.
	From []netip.Prefix
	// Passport lets Passports go over them.
	Passport bool
}

// Route is one operation of a service. In the order written, the first that
// matches wins.
type Route struct {
	// Name is unique in the service.
	Name  string
	Match Match
	// Callers names the services and gateways that may call; default nobody.
	Callers []string
	// Plaintext serves connections in the clear, which name no caller.
	Plaintext bool
	// Allow is a CEL expression; required.
	Allow         string
	AllowPosition Position
	// Rego must allow, too; nil asks no policy.
	Rego *RegoRule
	// Timeout bounds the whole call, retries included.
	Timeout        time.Duration
	Retries        *Retries
	CircuitBreaker *CircuitBreaker
	RateLimit      *RateLimit
	// Authentication is what the Passport must say of how its user came in.
	Authentication Authentication
	// MaxBody is as of [GatewayRoute].
	MaxBody uint32
}

// ID identifies the route as [GatewayRoute.ID] does: it leads to the service.
func (r Route) ID() string { return r.Name + " " + r.Match.String() }

// Retries says when the caller's Envoy tries again.
type Retries struct {
	// Attempts after the first.
	Attempts uint32
	// On lists Envoy retry conditions, e.g. "connect-failure".
	On []string
	// PerTry bounds one attempt; zero leaves Route.Timeout alone to bound it.
	PerTry time.Duration
}

// CircuitBreaker bounds what one caller's Envoy asks of one route's upstream,
// and takes out instances that fail. A nil limit is Envoy's own default.
type CircuitBreaker struct {
	MaxConnections *uint32
	MaxPending     *uint32
	MaxRequests    *uint32
	MaxRetries     *uint32
	// Consecutive5xx answers eject an instance; nil never does.
	Consecutive5xx *uint32
	// EjectFor is the first ejection's time; it grows up to MaxEjectFor.
	EjectFor    time.Duration
	MaxEjectFor time.Duration
}

// RateLimit is a token bucket per key: Burst tokens, refilled with Requests
// every Per.
type RateLimit struct {
	Requests uint32
	Per      time.Duration
	Burst    uint32
	// By lists what makes a key; empty is one bucket for the route.
	By []RateLimitKey
}

// RateLimitKey is a part of a request that a bucket is kept for.
type RateLimitKey string

// The keys of rate limits.
const (
	ByTenant RateLimitKey = "tenant"
	ByUser   RateLimitKey = "user"
	ByClient RateLimitKey = "client"
	ByIP     RateLimitKey = "ip"
)

// Gateway returns the gateway of that name, or nil.
func (m *Mesh) Gateway(name string) *Gateway {
	return lookUp(m.Gateways, name, func(g *Gateway) string { return g.Name })
}

// ChooseGateway returns the gateway of a name, or the only one.
func (m *Mesh) ChooseGateway(name string) (*Gateway, error) {
	if g := m.Gateway(name); g != nil {
		return g, nil
	}
	var names []string
	for _, g := range m.Gateways {
		names = append(names, g.Name)
	}
	switch {
	case len(names) == 0:
		return nil, errors.New("there is no Gateway document: write one, whose routes say what is let in")
	case name != "":
		return nil, fmt.Errorf("there is no Gateway called %q: there are %s", name, strings.Join(names, ", "))
	case len(names) > 1:
		return nil, fmt.Errorf("there are several Gateway documents: choose one of %s", strings.Join(names, ", "))
	}
	return m.Gateways[0], nil
}

// Service returns the service of that name, or nil.
func (m *Mesh) Service(name string) *Service {
	return lookUp(m.Services, name, func(s *Service) string { return s.Name })
}

// Destinations returns the services that g may call, which are those that its
// routes to a {variable} lead to.
func (m *Mesh) Destinations(g *Gateway) []*Service {
	return slices.DeleteFunc(slices.Clone(m.Services), func(s *Service) bool {
		return !slices.ContainsFunc(s.Routes, func(r Route) bool { return slices.Contains(r.Callers, g.Name) })
	})
}

// Provider returns the identity provider of that name, or nil.
func (m *Mesh) Provider(name string) *IdentityProvider {
	return lookUp(m.Providers, name, func(p *IdentityProvider) string { return p.Name })
}

// Client returns the client of that id, or nil.
func (m *Mesh) Client(id string) *Client {
	return lookUp(m.Clients, id, func(c *Client) string { return c.ID })
}

// RegoPolicy returns the policy of that name, or nil.
func (m *Mesh) RegoPolicy(name string) *Rego {
	return lookUp(m.Rego, name, func(r *Rego) string { return r.Name })
}

// lookUp finds what is sorted by name.
func lookUp[T any](sorted []*T, name string, nameOf func(*T) string) *T {
	i, found := slices.BinarySearchFunc(sorted, name, func(t *T, name string) int { return strings.Compare(nameOf(t), name) })
	if !found {
		return nil
	}
	return sorted[i]
}
