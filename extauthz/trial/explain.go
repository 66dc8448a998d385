package trial

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/provider"
	"github.com/chancery-mesh/chancery/extauthz/revocation"
	"github.com/chancery-mesh/chancery/extauthz/translate"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/mesh"
	"github.com/chancery-mesh/chancery/passport"
)

// Documents decide about a request that has not happened, with the real keys.
type Documents struct {
	Mesh *mesh.Mesh
	// Gateway or Service names the one that decides; the only gateway if both are
	// empty.
	Gateway, Service string
	// PassportKeys are those of gateways, for a service; nil knows none.
	PassportKeys passport.KeySet
}

// fetchFor bounds how long identity providers may take to say their keys.
const fetchFor = 5 * time.Second

// Explain decides about h. At a gateway it fetches the keys of the identity
// providers that the gateway names; those that do not answer are not known.
func (d *Documents) Explain(ctx context.Context, h *extauthz.Hypothesis) (*extauthz.Record, error) {
	if h.Introspect {
		return nil, errors.New("documents alone have no secret to ask identity providers with: ask an agent")
	}
	policy, keys, err := d.policy(ctx)
	if err != nil {
		return nil, err
	}
	policy.Decisions = tellsAll
	rules, err := extauthz.Compile(policy)
	if err != nil {
		return nil, err
	}
	state, err := rules.With(keys)
	if err != nil {
		return nil, err
	}
	signer, err := newSigner() // it is asked for, and nothing is signed
	if err != nil {
		return nil, err
	}
	server, err := extauthz.New(extauthz.Config{
		Logger: slog.New(slog.DiscardHandler), Signer: func() *passport.Signer { return signer },
	})
	if err != nil {
		return nil, err
	}
	server.SetState(state)
	return server.Explain(ctx, h), nil
}

func (d *Documents) policy(ctx context.Context) (*chancerypb.Policy, extauthz.Keys, error) {
	keys := extauthz.Keys{Revocations: &revocation.Index{}}
	if d.Service != "" {
		s := d.Mesh.Service(d.Service)
		if s == nil {
			return nil, keys, fmt.Errorf("there is no Service called %q in the documents", d.Service)
		}
		var err error
		keys.Passports, err = byGateway(d.Mesh, d.PassportKeys)
		return translate.Service(d.Mesh, s), keys, err
	}
	g, err := d.Mesh.ChooseGateway(d.Gateway)
	if err != nil {
		return nil, keys, err
	}
	policy := translate.Gateway(d.Mesh, g)
	keys.Accounts = slices.Collect(maps.Values(translate.Accounts(d.Mesh)))
	keys.Providers, err = fetch(ctx, d.Mesh, translate.ProviderNames(policy))
	return policy, keys, err
}

// fetch gets the keys of identity providers, once.
func fetch(ctx context.Context, m *mesh.Mesh, names []string) ([]*chancerypb.Provider, error) {
	var mu sync.Mutex
	known := map[string]*chancerypb.Provider{}
	keyring, err := provider.New(provider.Config{Changed: func(name string, p *chancerypb.Provider) {
		mu.Lock()
		defer mu.Unlock()
		known[name] = p
	}})
	if err != nil {
		return nil, err
	}
	keyring.Use(slices.DeleteFunc(slices.Clone(m.Providers), func(d *mesh.IdentityProvider) bool {
		return !slices.Contains(names, d.Name)
	}))
	ctx, cancel := context.WithTimeout(ctx, fetchFor)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- keyring.Run(ctx) }()
	_, err = keyring.Refresh(ctx, "")
	cancel()
	if err := errors.Join(err, <-done); err != nil {
		return nil, err
	}
	mu.Lock()
	defer mu.Unlock()
	return slices.Collect(maps.Values(known)), nil
}

// byGateway parts keys by the gateways that own them.
func byGateway(m *mesh.Mesh, all passport.KeySet) (parts []*chancerypb.PassportKeys, err error) {
	for _, g := range m.Gateways {
		owner, own := spiffeID(m, g.Name), passport.KeySet{}
		for id, key := range all {
			if key.Owner == owner {
				own[id] = key
			}
		}
		if len(own) == 0 {
			continue
		}
		jwks, err := json.Marshal(own)
		if err != nil {
			return nil, err
		}
		parts = append(parts, &chancerypb.PassportKeys{Gateway: g.Name, SpiffeId: owner, Jwks: jwks})
	}
	return parts, nil
}
