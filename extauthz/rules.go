package extauthz

import (
	"errors"
	"fmt"
	"time"

	"github.com/chancery-mesh/chancery/extauthz/policy"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/mesh"
)

// Rules are a policy, compiled, which costs by far the most of a [State]. They
// are immutable.
type Rules struct {
	id          identity.ID
	name        string
	trustDomain string
	routes      map[string]*route
	// gateways are those whose Passports a service takes, and providers those
	// whose access tokens a gateway takes.
	gateways, providers []string

	// mints says that a gateway does, with that lifetime; tenants are those
	// whose users it lets in, none is any.
	mints    bool
	lifetime time.Duration
	tenants  map[string]struct{}
	// clearPassport says that a service takes Passports on connections in the
	// clear.
	clearPassport bool
}

type route struct {
	name   string
	method string
	path   mesh.Pattern
	// allow is nil where authentication is enough.
	allow *policy.Program
	// callers by SPIFFE ID; services only.
	callers map[string]identity.ID
	// plaintext lets in calls on connections in the clear; services only.
	plaintext bool
	// provider of access tokens; gateways only, empty where none is accepted.
	provider string
}

// Compile compiles a policy. Anything invalid is an error, which tells all of
// it; keep the last good rules then.
func Compile(p *chancerypb.Policy) (*Rules, error) {
	r := &Rules{
		name: p.GetName(), trustDomain: p.GetTrustDomain(), routes: make(map[string]*route),
		gateways: p.GetGateways(), providers: p.GetProviders(), clearPassport: p.GetClearPassport(),
	}
	var err error
	r.id, err = identity.ParseSPIFFE(r.trustDomain, "spiffe://"+r.trustDomain+"/"+r.name)
	if err != nil || r.trustDomain == "" {
		return nil, fmt.Errorf("policy %q of trust domain %q names no workload", r.name, r.trustDomain)
	}
	if p.GetMinting() != nil && !r.isGateway() {
		return nil, fmt.Errorf("policy %q: gateways mint Passports, and nobody else", r.name)
	}
	if r.isGateway() {
		err = r.addGatewayRoutes(p)
	} else {
		err = r.addServiceRoutes(p)
	}
	if err != nil {
		return nil, fmt.Errorf("policy %q: %w", r.name, err)
	}
	return r, nil
}

func (r *Rules) isGateway() bool { return r.id.Role == identity.RoleGateway }

func (r *Rules) addGatewayRoutes(p *chancerypb.Policy) error {
	r.mints = p.GetMinting() != nil
	if r.lifetime = p.GetMinting().GetLifetime().AsDuration(); r.mints && r.lifetime < time.Second {
		return errors.New("lifetime of Passports must be at least 1s")
	}
	r.tenants = setOf(p.GetMinting().GetTenants())
	providers := setOf(p.GetProviders())
	var errs []error
	for _, rp := range p.GetRoutes() {
		compiled, err := r.addRoute(rp)
		errs = append(errs, err)
		if name := rp.GetAccessToken(); name != "" && compiled != nil {
			if _, ok := providers[name]; !ok {
				errs = append(errs, fmt.Errorf("route %q: provider %q is not one of the policy's", rp.GetName(), name))
			}
			compiled.provider = name
		}
	}
	return errors.Join(errs...)
}

func setOf(list []string) map[string]struct{} {
	set := make(map[string]struct{}, len(list))
	for _, s := range list {
		set[s] = struct{}{}
	}
	return set
}

func (r *Rules) addServiceRoutes(p *chancerypb.Policy) error {
	var errs []error
	for _, rp := range p.GetRoutes() {
		compiled, err := r.addRoute(rp)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if compiled.allow == nil {
			errs = append(errs, fmt.Errorf("route %q: no rule", rp.GetName()))
		}
		compiled.plaintext = rp.GetPlaintext()
		compiled.callers = make(map[string]identity.ID)
		for _, caller := range rp.GetCallers() {
			id, err := identity.ParseSPIFFE(r.trustDomain, caller)
			if err != nil {
				errs = append(errs, fmt.Errorf("route %q: caller: %w", rp.GetName(), err))
			}
			compiled.callers[caller] = id
		}
	}
	return errors.Join(errs...)
}

// addRoute compiles what all routes have.
func (r *Rules) addRoute(rp *chancerypb.RoutePolicy) (*route, error) {
	path, err := mesh.ParsePattern(rp.GetPath())
	if err != nil {
		return nil, fmt.Errorf("route %q: path %q %w", rp.GetName(), rp.GetPath(), err)
	}
	if _, twice := r.routes[rp.GetName()]; twice || rp.GetName() == "" {
		return nil, fmt.Errorf("route %q: name must be given and stand once", rp.GetName())
	}
	compiled := &route{name: rp.GetName(), method: rp.GetMethod(), path: path}
	if source := rp.GetAllow(); source != "" {
		var faults []mesh.ExpressionFault
		if compiled.allow, faults = policy.Compile(source); len(faults) > 0 {
			return nil, fmt.Errorf("route %q: rule: %d:%d: %s",
				rp.GetName(), faults[0].Line, faults[0].Column, faults[0].Message)
		}
	}
	r.routes[compiled.name] = compiled
	return compiled, nil
}
