package extauthz

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/extauthz/policy"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/mesh"
	"github.com/chancery-mesh/chancery/passport"
)

// State is what checks are decided by: a policy, compiled, with its keys. It is
// immutable.
type State struct {
	id          identity.ID
	name        string
	trustDomain string
	routes      map[string]*route

	// lifetime of the Passports that a gateway mints.
	lifetime time.Duration
	// passports verifies those that a service gets; nil while it has no keys.
	passports *passport.Verifier
}

type route struct {
	name   string
	method string
	path   mesh.Pattern
	// allow is nil where authentication is enough.
	allow *policy.Program
	// callers by SPIFFE ID; services only.
	callers map[string]identity.ID
	// provider of access tokens; gateways only, nil where none is accepted.
	provider *provider
}

type provider struct {
	// verifier is nil while the provider's keys are not known.
	verifier    *credential.Verifier
	usableUntil time.Time
}

// NewState compiles a policy. Providers and keys that it does not refer to are
// ignored; those that it refers to and that are missing are not known yet, and
// what needs them is denied. Anything invalid is an error, which tells all of
// it; keep the last good state then.
func NewState(
	p *chancerypb.Policy, providers []*chancerypb.Provider, keys []*chancerypb.PassportKeys,
) (*State, error) {
	s := &State{name: p.GetName(), trustDomain: p.GetTrustDomain(), routes: make(map[string]*route)}
	var err error
	s.id, err = identity.ParseSPIFFE(s.trustDomain, "spiffe://"+s.trustDomain+"/"+s.name)
	if err != nil || s.trustDomain == "" {
		return nil, fmt.Errorf("policy %q of trust domain %q names no workload", s.name, s.trustDomain)
	}
	if (s.id.Role == identity.RoleGateway) != (p.GetMinting() != nil) {
		return nil, fmt.Errorf("policy %q: gateways mint Passports, and nobody else", s.name)
	}
	if s.isGateway() {
		err = s.addGatewayRoutes(p, providers)
	} else {
		err = errors.Join(s.addKeys(p, keys), s.addServiceRoutes(p))
	}
	if err != nil {
		return nil, fmt.Errorf("policy %q: %w", s.name, err)
	}
	return s, nil
}

func (s *State) isGateway() bool { return s.id.Role == identity.RoleGateway }

func (s *State) addGatewayRoutes(p *chancerypb.Policy, list []*chancerypb.Provider) error {
	if s.lifetime = p.GetMinting().GetLifetime().AsDuration(); s.lifetime < time.Second {
		return errors.New("lifetime of Passports must be at least 1s")
	}
	providers, err := newProviders(p.GetProviders(), list)
	errs := []error{err}
	for _, r := range p.GetRoutes() {
		compiled, err := s.addRoute(r)
		errs = append(errs, err)
		if name := r.GetAccessToken(); name != "" && compiled != nil {
			if compiled.provider = providers[name]; compiled.provider == nil {
				errs = append(errs, fmt.Errorf("route %q: provider %q is not one of the policy's", r.GetName(), name))
			}
		}
	}
	return errors.Join(errs...)
}

func (s *State) addServiceRoutes(p *chancerypb.Policy) error {
	var errs []error
	for _, r := range p.GetRoutes() {
		compiled, err := s.addRoute(r)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if compiled.allow == nil {
			errs = append(errs, fmt.Errorf("route %q: no rule", r.GetName()))
		}
		compiled.callers = make(map[string]identity.ID)
		for _, caller := range r.GetCallers() {
			id, err := identity.ParseSPIFFE(s.trustDomain, caller)
			if err != nil {
				errs = append(errs, fmt.Errorf("route %q: caller: %w", r.GetName(), err))
			}
			compiled.callers[caller] = id
		}
	}
	return errors.Join(errs...)
}

// addRoute compiles what all routes have.
func (s *State) addRoute(r *chancerypb.RoutePolicy) (*route, error) {
	path, err := mesh.ParsePattern(r.GetPath())
	if err != nil {
		return nil, fmt.Errorf("route %q: path %q %w", r.GetName(), r.GetPath(), err)
	}
	if _, twice := s.routes[r.GetName()]; twice || r.GetName() == "" {
		return nil, fmt.Errorf("route %q: name must be given and stand once", r.GetName())
	}
	compiled := &route{name: r.GetName(), method: r.GetMethod(), path: path}
	if source := r.GetAllow(); source != "" {
		var faults []mesh.ExpressionFault
		if compiled.allow, faults = policy.Compile(source); len(faults) > 0 {
			return nil, fmt.Errorf("route %q: rule: %d:%d: %s",
				r.GetName(), faults[0].Line, faults[0].Column, faults[0].Message)
		}
	}
	s.routes[compiled.name] = compiled
	return compiled, nil
}

// newProviders returns the providers that are named, without a verifier as long
// as their keys are not known.
func newProviders(names []string, list []*chancerypb.Provider) (map[string]*provider, error) {
	providers := make(map[string]*provider, len(names))
	for _, name := range names {
		providers[name] = &provider{}
	}
	var errs []error
	for _, p := range list {
		if providers[p.GetName()] == nil || len(p.GetJwks()) == 0 {
			continue
		}
		v, err := credential.NewVerifier(p)
		errs = append(errs, err)
		providers[p.GetName()] = &provider{verifier: v, usableUntil: p.GetUsableUntil().AsTime()}
	}
	return providers, errors.Join(errs...)
}

// addKeys takes the keys of the gateways that the service accepts Passports of.
// A key speaks for its own gateway alone.
func (s *State) addKeys(p *chancerypb.Policy, list []*chancerypb.PassportKeys) error {
	all := passport.KeySet{}
	var errs []error
	for _, k := range list {
		if slices.Contains(p.GetGateways(), k.GetGateway()) {
			set, err := s.parseKeys(k)
			maps.Copy(all, set)
			errs = append(errs, err)
		}
	}
	if len(all) > 0 {
		var err error
		s.passports, err = passport.NewVerifier(passport.VerifierConfig{TrustDomain: s.trustDomain, Keys: all})
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
