package sidecar

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/revocation"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
)

// pdp keeps the policy decision point on the newest policy and keys. It is
// safe for concurrent use.
type pdp struct {
	id     identity.ID
	server *extauthz.Server
	held   *held
	// keys are the application's to read, beside a service.
	keys applicationKeys

	// judged are the rules of policies that came, by their version. Only judge
	// uses them.
	judged map[string]*extauthz.Rules

	mu sync.Mutex
	// latest is what is decided by, nil as long as there is nothing, and before
	// about the routes that latest does not have, nil for none.
	latest, before *rulebook
	// trust in the certificates of callers, nil while it is not known.
	trust extauthz.Trust
	// revocations of credentials, nil while they are not known.
	revocations *revocation.Index
}

// rulebook is a policy, compiled.
type rulebook struct {
	*extauthz.Rules
	policy *chancerypb.Policy
}

func newRulebook(policy *chancerypb.Policy) (*rulebook, error) {
	rules, err := extauthz.Compile(policy)
	if err != nil {
		return nil, err
	}
	return &rulebook{rules, policy}, nil
}

// widen decides by policy from now on, and by before about the routes that only
// before has: Envoy may yet ask for them. Each decision is of one of the two.
func (p *pdp) widen(before, policy *chancerypb.Policy) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.decide(before, policy)
}

// narrow decides by policy alone.
func (p *pdp) narrow(policy *chancerypb.Policy) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.latest != nil && p.before == nil && proto.Equal(p.latest.policy, policy) {
		return nil
	}
	return p.decide(nil, policy)
}

// refresh decides by the newest keys.
func (p *pdp) refresh() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.again()
}

// trusts decides by another trust from now on.
func (p *pdp) trusts(t extauthz.Trust) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trust = t
	return p.again()
}

// revokes decides by other revocations from now on.
func (p *pdp) revokes(index *revocation.Index) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.revocations = index
	return p.again()
}

// maxContactEvery is how often the control plane is asked whether there is
// anything newer, where nobody depends on that.
const maxContactEvery = 15 * time.Second

// contactEvery returns how often the control plane is asked whether there is
// anything newer: one answer may be lost, and another be late.
func (p *pdp) contactEvery() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.latest != nil {
		if limit := p.latest.policy.GetMaxStaleness().AsDuration(); limit > 0 {
			return min(limit/4, maxContactEvery)
		}
	}
	return maxContactEvery
}

// decide replaces the rules. The caller holds the lock.
func (p *pdp) decide(earlier, policy *chancerypb.Policy) error {
	if policy == nil {
		return errors.New("revision without a policy")
	}
	latest, err := newRulebook(policy)
	if err != nil {
		return err
	}
	var before *rulebook
	if hasMoreRoutes(earlier, policy) {
		if before, err = newRulebook(earlier); err != nil {
			return err
		}
	}
	if err := p.apply(latest, before); err != nil {
		return err
	}
	p.latest, p.before = latest, before
	return nil
}

// hasMoreRoutes reports whether there are routes of earlier that policy does not
// have.
func hasMoreRoutes(earlier, policy *chancerypb.Policy) bool {
	names := map[string]bool{}
	for _, r := range policy.GetRoutes() {
		names[r.GetName()] = true
	}
	return slices.ContainsFunc(earlier.GetRoutes(), func(r *chancerypb.RoutePolicy) bool { return !names[r.GetName()] })
}

// again decides by the same rules and what else is known now. The caller holds
// the lock.
func (p *pdp) again() error {
	if p.latest == nil {
		return nil
	}
	return p.apply(p.latest, p.before)
}

// apply replaces the state. The caller holds the lock.
func (p *pdp) apply(latest, before *rulebook) error {
	keys := extauthz.Keys{
		Providers: decodeAll[*chancerypb.Provider](p.held.set(providerType)),
		Passports: decodeAll[*chancerypb.PassportKeys](p.held.set(passportKeysType)),
		Trust:     p.trust,

		Revocations: p.revocations,
	}
	accounts := p.held.set(accountsType)
	keys.Accounts = accountsFor(latest.policy, accounts)
	state, err := latest.With(keys)
	if err == nil && before != nil {
		keys.Accounts = accountsFor(before.policy, accounts)
		state, err = state.After(before.Rules, keys)
	}
	if err != nil {
		return err
	}
	p.server.SetState(state)
	if p.id.Role == identity.RoleService {
		p.keys.update(keys.Passports)
	}
	return nil
}

// ready reports whether there is something to decide by.
func (p *pdp) ready() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.latest != nil
}

// judge tries resources that came from the control plane: it is an error when
// the policy decision point could not work with them.
func (p *pdp) judge(resources []*xds.Resource) error {
	for _, r := range resources {
		m, err := decode(r)
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *chancerypb.Policy:
			if m.GetName() != p.id.String() {
				return fmt.Errorf("policy %q is not that of %s", m.GetName(), p.id)
			}
			_, err = p.compiled(r, m)
		case *chancerypb.Provider:
			err = p.tryKeys(extauthz.Keys{Providers: []*chancerypb.Provider{m}})
		case *chancerypb.Accounts:
			err = p.tryKeys(extauthz.Keys{Accounts: []*chancerypb.Accounts{m}})
		case *chancerypb.PassportKeys:
			err = p.tryKeys(extauthz.Keys{Passports: []*chancerypb.PassportKeys{m}})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tryKeys tries keys with the policy that asked for them.
func (p *pdp) tryKeys(keys extauthz.Keys) error {
	for _, r := range p.held.set(policyType) {
		m, err := decode(r)
		if err != nil {
			return err
		}
		rules, err := p.compiled(r, m.(*chancerypb.Policy))
		if err == nil {
			_, err = rules.With(keys)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// compiled compiles the policy m in r, unless the last one had the same version:
// keys come much more often than policies.
func (p *pdp) compiled(r *xds.Resource, m *chancerypb.Policy) (*extauthz.Rules, error) {
	if rules := p.judged[r.Version]; rules != nil {
		return rules, nil
	}
	rules, err := extauthz.Compile(m)
	if err == nil {
		p.judged = map[string]*extauthz.Rules{r.Version: rules}
	}
	return rules, err
}
