package extauthz

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/extauthz/policy"
	"github.com/chancery-mesh/chancery/extauthz/policy/rego"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/mesh"
	"github.com/chancery-mesh/chancery/passport"
)

// Rules are a policy, compiled, which costs by far the most of a [State]. They
// are immutable.
type Rules struct {
	id          identity.ID
	name        string
	revision    string
	trustDomain string
	// spiffeID is of id, and passportChallenge what those are told that show no
	// good Passport.
	spiffeID, passportChallenge string

	routes map[string]*route
	// order has the routes as they are written, and matchesRoutes says that checks
	// need not name one.
	order         []*route
	matchesRoutes bool
	// gateways are those whose Passports a service takes.
	gateways []string
	// providers are those whose tokens a gateway takes, by name.
	providers map[string]*chancerypb.Provider

	// lifetime of the Passports that a gateway mints, zero if it mints none, and
	// the tenants whose users it lets in; none is any.
	lifetime time.Duration
	tenants  map[string]struct{}
	// destinations are the services that routes to a "{variable}" lead to.
	destinations map[string]struct{}
	// clearPassport says that a service takes Passports on connections in the
	// clear.
	clearPassport bool
	// denyStatus is that of all denials that are nobody's fault but the
	// client's; zero tells them apart.
	denyStatus int
	// maxStaleness is how long decisions are made without word of the control
	// plane; zero has no end.
	maxStaleness time.Duration
	tables       *policy.Tables
	recording    Recording
	// rego are the policies that routes ask, by name.
	rego map[string]*rego.Policy
}

type route struct {
	name   string
	method string
	path   mesh.Pattern
	auth   *authentication
	// allow is nil where authentication is enough; position is where it stands.
	allow    *policy.Program
	position string
	// rego is nil where no policy must allow, too.
	rego *regoRule
	// maxBody is how much of the body there must be for the rule to read it.
	maxBody uint32
	// bind are the facts that a Passport carries; gateways only.
	bind map[string]*policy.Program
	// to is the service that requests go to, or "{variable}"; gateways only.
	to string
	// callers by SPIFFE ID; services only.
	callers map[string]identity.ID
	// plaintext lets in calls on connections in the clear; services only.
	plaintext bool
}

// destination returns the service that a request goes to.
func (r *route) destination(params map[string]string) string {
	if name, ok := strings.CutPrefix(r.to, "{"); ok {
		return params[strings.TrimSuffix(name, "}")]
	}
	return r.to
}

// leads reports whether there is somewhere for a request to go by route m, whose
// method and path it matches.
func (r *Rules) leads(m *route, params map[string]string) bool {
	if !strings.HasPrefix(m.to, "{") {
		return true
	}
	_, ok := r.destinations[m.destination(params)]
	return ok
}

// Compile compiles a policy. Anything invalid is an error, which tells all of
// it; keep the last good rules then.
func Compile(p *chancerypb.Policy) (*Rules, error) {
	r := &Rules{
		name: p.GetName(), trustDomain: p.GetTrustDomain(), routes: make(map[string]*route),
		gateways: p.GetGateways(), providers: make(map[string]*chancerypb.Provider), clearPassport: p.GetClearPassport(),
		denyStatus: int(p.GetDenyStatus()), maxStaleness: p.GetMaxStaleness().AsDuration(),
		matchesRoutes: p.GetMatchRoutes(),
	}
	var err error
	r.id, err = identity.ParseSPIFFE(r.trustDomain, "spiffe://"+r.trustDomain+"/"+r.name)
	if err != nil || r.trustDomain == "" {
		return nil, fmt.Errorf("policy %q of trust domain %q names no workload", r.name, r.trustDomain)
	}
	r.spiffeID, r.passportChallenge = r.id.SPIFFE(r.trustDomain), fmt.Sprintf("%s realm=%q", passport.Header, r.id.Name)
	if r.revision, err = revisionOf(p); err != nil {
		return nil, fmt.Errorf("policy %q: %w", r.name, err)
	}
	if p.GetMinting() != nil && !r.isGateway() {
		return nil, fmt.Errorf("policy %q: gateways mint Passports, and nobody else", r.name)
	}
	if r.denyStatus != 0 && r.denyStatus != 403 {
		return nil, fmt.Errorf("policy %q: status of denials must be 403 if it is one", r.name)
	}
	if r.maxStaleness < 0 {
		return nil, fmt.Errorf("policy %q: maximal staleness must not be negative", r.name)
	}
	for _, provider := range p.GetProviders() {
		r.providers[provider.GetName()] = provider
	}
	if r.tables, err = tablesOf(p); err == nil {
		r.recording, err = recordingOf(p.GetDecisions())
	}
	if err == nil {
		r.rego, err = regoPolicies(p)
	}
	if err == nil {
		err = r.addRoutes(p)
	}
	if err != nil {
		return nil, fmt.Errorf("policy %q: %w", r.name, err)
	}
	return r, nil
}

func recordingOf(d *chancerypb.Decisions) (Recording, error) {
	mode := map[chancerypb.Decisions_Log]audit.Mode{
		chancerypb.Decisions_BEST_EFFORT: audit.BestEffort, chancerypb.Decisions_REQUIRED: audit.Required, chancerypb.Decisions_OFF: audit.Off,
	}
	r := Recording{Redaction: audit.Redaction{
		User: audit.Redact(d.GetUser()), Tenant: audit.Redact(d.GetTenant()), Client: audit.Redact(d.GetClient()),
		IP: audit.Redact(d.GetIp()), Path: audit.Redact(d.GetPath()),
	}}
	var known bool
	if r.Mode, known = mode[d.GetLog()]; !known {
		return r, fmt.Errorf("decisions: log %v is not known", d.GetLog())
	}
	return r, r.Redaction.Check()
}

// revisionOf identifies what a policy says, wherever its rules are written.
func revisionOf(p *chancerypb.Policy) (string, error) {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(p.WithoutPositions())
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:6]), err
}

func tablesOf(p *chancerypb.Policy) (*policy.Tables, error) {
	roles := make([]policy.Role, len(p.GetRoles()))
	for i, role := range p.GetRoles() {
		roles[i] = policy.Role{Name: role.GetName(), Groups: role.GetGroups(), Permissions: role.GetPermissions()}
	}
	return policy.NewTables(roles, p.GetData())
}

func (r *Rules) isGateway() bool { return r.id.Role == identity.RoleGateway }

// mints reports whether requests go on with a Passport in place of their
// credentials.
func (r *Rules) mints() bool { return r.isGateway() && r.lifetime > 0 }

func (r *Rules) addRoutes(p *chancerypb.Policy) error {
	var errs []error
	r.lifetime = p.GetMinting().GetLifetime().AsDuration()
	if r.lifetime != 0 && r.lifetime < time.Second {
		errs = append(errs, errors.New("lifetime of Passports must be at least 1s"))
	}
	r.tenants, r.destinations = setOf(p.GetMinting().GetTenants()), setOf(p.GetDestinations())
	for _, rp := range p.GetRoutes() {
		compiled, err := r.compileRoute(rp)
		if err == nil && r.isGateway() {
			err = r.compileGatewayRoute(compiled, rp)
		} else if err == nil {
			err = r.compileServiceRoute(compiled, rp)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("route %q: %w", rp.GetName(), err))
			continue
		}
		r.routes[compiled.name] = compiled
		r.order = append(r.order, compiled)
	}
	return errors.Join(errs...)
}

// compileRoute compiles what all routes have.
func (r *Rules) compileRoute(rp *chancerypb.RoutePolicy) (*route, error) {
	path, err := mesh.ParsePattern(rp.GetPath())
	if err != nil {
		return nil, fmt.Errorf("path %q %w", rp.GetPath(), err)
	}
	if _, twice := r.routes[rp.GetName()]; twice || rp.GetName() == "" {
		return nil, errors.New("name must be given and stand once")
	}
	compiled := &route{
		name: rp.GetName(), method: rp.GetMethod(), path: path,
		position: rp.GetPosition(), maxBody: rp.GetMaxBody(), to: rp.GetTo(),
	}
	if compiled.auth, err = compileAuthentication(rp.GetAuthentication(), r.id.Name, r.isGateway()); err != nil {
		return nil, err
	}
	if compiled.rego, err = r.regoRule(rp.GetRego()); err != nil {
		return nil, err
	}
	if source := rp.GetAllow(); source != "" {
		compiled.allow, err = compiledRule(policy.Compile(source))
	}
	return compiled, err
}

func compiledRule(p *policy.Program, faults []mesh.ExpressionFault) (*policy.Program, error) {
	if len(faults) > 0 {
		return nil, fmt.Errorf("rule: %d:%d: %s", faults[0].Line, faults[0].Column, faults[0].Message)
	}
	return p, nil
}

func (r *Rules) compileGatewayRoute(compiled *route, rp *chancerypb.RoutePolicy) error {
	for _, one := range compiled.auth.alternatives {
		for _, provider := range []string{one.accessToken, one.idToken} {
			if provider != "" && r.providers[provider] == nil {
				return fmt.Errorf("provider %q is not one of the policy's", provider)
			}
		}
	}
	compiled.bind = make(map[string]*policy.Program, len(rp.GetBind()))
	for _, name := range slices.Sorted(maps.Keys(rp.GetBind())) {
		program, err := compiledRule(policy.CompileBinding(rp.GetBind()[name]))
		if err != nil {
			return fmt.Errorf("bind %q: %w", name, err)
		}
		compiled.bind[name] = program
	}
	return nil
}

func (r *Rules) compileServiceRoute(compiled *route, rp *chancerypb.RoutePolicy) error {
	if compiled.allow == nil {
		return errors.New("no rule")
	}
	compiled.plaintext = rp.GetPlaintext()
	compiled.callers = make(map[string]identity.ID)
	for _, caller := range rp.GetCallers() {
		id, err := identity.ParseSPIFFE(r.trustDomain, caller)
		if err != nil {
			return fmt.Errorf("caller: %w", err)
		}
		compiled.callers[caller] = id
	}
	return nil
}

func setOf(list []string) map[string]struct{} {
	set := make(map[string]struct{}, len(list))
	for _, s := range list {
		set[s] = struct{}{}
	}
	return set
}
