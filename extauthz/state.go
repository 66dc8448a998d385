package extauthz

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/extauthz/revocation"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/passport"
)

// maxPassports is about how many verified Passports a state remembers. They are
// many where a user's page makes many requests, and short-lived.
const maxPassports = 4096

// State is what checks are decided by: rules with the keys they need. It is
// immutable, so that no decision mixes two.
type State struct {
	*Rules
	// providers by name.
	providers map[string]*provider
	accounts  *accounts
	// passports verifies those that a service gets; nil while it has no keys.
	passports *passport.Verifier
	// trust in the certificates of callers; nil while nothing is known.
	trust Trust
	// revocations of credentials; nil while they are not known.
	revocations *revocation.Index
	// before decides about routes that only it has, nil for none.
	before *State
}

// After returns s, but that the routes which only before has are decided by
// before, wholly: requests may still come by them. Whom s no longer takes to
// vouch for users, though, does so nowhere.
func (s *State) After(before *Rules, k Keys) (*State, error) {
	k.Passports = slices.DeleteFunc(slices.Clone(k.Passports), func(p *chancerypb.PassportKeys) bool {
		return !slices.Contains(s.gateways, p.GetGateway())
	})
	earlier, err := before.With(k)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(earlier.providers, func(name string, p *provider) bool {
		now := s.providers[name]
		return now == nil || now.GetIssuer() != p.GetIssuer()
	})
	both := *s
	both.before = earlier
	return &both, nil
}

// of returns the state that decides about requests by a route.
func (s *State) of(route string) *State {
	if s.before == nil || s.routes[route] != nil || s.before.routes[route] == nil {
		return s
	}
	return s.before
}

// provider is an identity provider with the keys that it is known to have.
type provider struct {
	*chancerypb.Provider
	// access and id verify its tokens; nil without keys.
	access, id  *credential.Verifier
	opaque      bool
	usableUntil time.Time
}

// verifiesAccess reports whether something can be said of access tokens. Who is
// asked about them needs no keys.
func (p *provider) verifiesAccess(now time.Time) verdict {
	switch {
	case p == nil:
		return noKeys
	case p.opaque:
		return allowed
	}
	return p.verifies(p.access, now)
}

// verifiesID reports whether something can be said of ID tokens.
func (p *provider) verifiesID(now time.Time) verdict {
	if p == nil {
		return noKeys
	}
	return p.verifies(p.id, now)
}

func (p *provider) verifies(by *credential.Verifier, now time.Time) verdict {
	switch {
	case by == nil:
		return noKeys
	case !now.Before(p.usableUntil):
		return staleKeys
	}
	return allowed
}

// Keys are what rules are applied with.
type Keys struct {
	// Providers of tokens, Accounts of documents, and Passports of gateways.
	// Those that the policy does not refer to are ignored; those that it refers
	// to and that are missing are not known yet, and what needs them is denied.
	// Of providers only what they serve counts: the policy itself says what their
	// tokens must be like.
	Providers []*chancerypb.Provider
	Accounts  []*chancerypb.Accounts
	Passports []*chancerypb.PassportKeys
	// Trust in the certificates of callers, nil while it is not known.
	Trust Trust
	// Revocations of credentials, nil while they are not known: whatever could be
	// revoked is denied.
	Revocations *revocation.Index
}

// Trust says which certificates are still good that were so when their
// connection was made. It must not change: a new one goes with a new state.
type Trust interface {
	// IsRevoked tells of a certificate by its SHA-256.
	IsRevoked(fingerprint [sha256.Size]byte) bool
	// HasAuthority tells of who signed it, by the hexadecimal authority key id.
	HasAuthority(id string) bool
}

// With returns the state that applies the rules with keys. It compiles nothing,
// so keys may come often. Keys that are invalid are an error, which tells all
// of it; keep the last good state then.
func (r *Rules) With(k Keys) (*State, error) {
	s := &State{Rules: r, trust: k.Trust, revocations: k.Revocations}
	var err error
	if r.isGateway() {
		err = errors.Join(s.addProviders(k.Providers), s.addAccounts(k.Accounts))
	} else {
		err = s.addPassports(k.Passports)
	}
	if err != nil {
		return nil, fmt.Errorf("policy %q: %w", r.name, err)
	}
	return s, nil
}

// addProviders takes the keys of the providers that the rules name.
func (s *State) addProviders(list []*chancerypb.Provider) error {
	served := make(map[string]*chancerypb.Provider, len(list))
	for _, p := range list {
		served[p.GetName()] = p
	}
	s.providers = make(map[string]*provider, len(s.Rules.providers))
	var errs []error
	for name, said := range s.Rules.providers {
		known, err := newProvider(withServed(said, served[name]))
		errs = append(errs, err)
		s.providers[name] = known
	}
	return errors.Join(errs...)
}

// withServed adds to what documents say of a provider what it serves itself, if
// that is known. What another issuer of that name served is not that.
func withServed(said, served *chancerypb.Provider) *chancerypb.Provider {
	p := proto.CloneOf(said)
	if served.GetIssuer() != p.GetIssuer() {
		served = nil
	}
	p.Jwks, p.FetchedAt, p.UsableUntil = served.GetJwks(), served.GetFetchedAt(), served.GetUsableUntil()
	if i := p.GetIntrospection(); i.GetEndpoint() == "" && i != nil {
		i.Endpoint = served.GetIntrospection().GetEndpoint()
	}
	return p
}

func newProvider(p *chancerypb.Provider) (*provider, error) {
	known := &provider{Provider: p, opaque: p.GetOpaque(), usableUntil: p.GetUsableUntil().AsTime()}
	if len(p.GetJwks()) == 0 {
		return known, nil
	}
	var errs [2]error
	if known.access, errs[0] = credential.NewVerifier(p); len(p.GetIdTokenAudiences()) > 0 {
		known.id, errs[1] = credential.NewIDTokenVerifier(p, p.GetIdTokenAudiences())
	}
	return known, errors.Join(errs[:]...)
}

// addPassports takes the keys of the gateways that the service accepts
// Passports of. A key speaks for its own gateway alone.
func (s *State) addPassports(list []*chancerypb.PassportKeys) error {
	all := passport.KeySet{}
	var errs []error
	for _, k := range list {
		if slices.Contains(s.gateways, k.GetGateway()) {
			set, err := s.parseKeys(k)
			maps.Copy(all, set)
			errs = append(errs, err)
		}
	}
	if len(all) > 0 {
		var err error
		s.passports, err = passport.NewVerifier(passport.VerifierConfig{
			TrustDomain: s.trustDomain, Keys: all, Remember: maxPassports,
		})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (s *State) parseKeys(k *chancerypb.PassportKeys) (passport.KeySet, error) {
	owner := identity.ID{Role: identity.RoleGateway, Name: k.GetGateway()}.SPIFFE(s.trustDomain)
	if k.GetSpiffeId() != owner {
		return nil, fmt.Errorf("keys of gateway %q belong to %q", k.GetGateway(), k.GetSpiffeId())
	}
	set, err := passport.ParseKeySet(k.GetJwks(), owner)
	if err != nil {
		return nil, fmt.Errorf("keys of gateway %q: %w", k.GetGateway(), err)
	}
	return set, nil
}
