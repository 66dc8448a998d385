package sidecar

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/extauthz"
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

	mu sync.Mutex
	// policy is what is decided by; nil as long as there is none.
	policy *chancerypb.Policy
}

// widen decides by policy from now on, and still knows the routes that only
// before has: Envoy may yet ask for them.
func (p *pdp) widen(before, policy *chancerypb.Policy) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.decide(union(before, policy))
}

// narrow decides by policy alone.
func (p *pdp) narrow(policy *chancerypb.Policy) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.decide(policy)
}

// refresh decides by the newest keys.
func (p *pdp) refresh() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.policy == nil {
		return nil
	}
	return p.decide(p.policy)
}

// decide replaces the state. The caller holds the lock.
func (p *pdp) decide(policy *chancerypb.Policy) error {
	if policy == nil {
		return errors.New("revision without a policy")
	}
	keys := decodeAll[*chancerypb.PassportKeys](p.held.set(passportKeysType))
	state, err := extauthz.NewState(policy, decodeAll[*chancerypb.Provider](p.held.set(providerType)), keys)
	if err != nil {
		return err
	}
	p.policy = policy
	p.server.SetState(state)
	if policy.GetMinting() == nil {
		p.keys.update(keys)
	}
	return nil
}

// ready reports whether there is something to decide by.
func (p *pdp) ready() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.policy != nil
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
			_, err = extauthz.NewState(m, nil, nil)
		case *chancerypb.Provider:
			err = p.tryKeys([]*chancerypb.Provider{m}, nil)
		case *chancerypb.PassportKeys:
			err = p.tryKeys(nil, []*chancerypb.PassportKeys{m})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tryKeys tries keys with the policy that asked for them.
func (p *pdp) tryKeys(providers []*chancerypb.Provider, keys []*chancerypb.PassportKeys) error {
	for _, policy := range decodeAll[*chancerypb.Policy](p.held.set(policyType)) {
		if _, err := extauthz.NewState(policy, providers, keys); err != nil {
			return err
		}
	}
	return nil
}

// union returns policy with the routes that only before has. A credential that
// policy no longer takes is not taken for those either.
func union(before, policy *chancerypb.Policy) *chancerypb.Policy {
	if before == nil || policy == nil {
		return policy
	}
	both := proto.CloneOf(policy)
	known := map[string]bool{}
	for _, route := range policy.GetRoutes() {
		known[route.GetName()] = true
	}
	for _, route := range before.GetRoutes() {
		provider := route.GetAccessToken()
		if !known[route.GetName()] && (provider == "" || slices.Contains(policy.GetProviders(), provider)) {
			both.Routes = append(both.Routes, route)
		}
	}
	return both
}
