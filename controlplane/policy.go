package controlplane

import (
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/mesh"
)

// gatewayPolicy is what the PDPs beside a gateway decide by.
func gatewayPolicy(m *mesh.Mesh, g *mesh.Gateway) *chancerypb.Policy {
	policy := &chancerypb.Policy{
		Name:        gatewayID(g.Name).String(),
		TrustDomain: m.TrustDomain,
		Minting: &chancerypb.Minting{
			Lifetime:         durationpb.New(m.PassportLifetime),
			Tenants:          g.Tenants,
			RefuseSelfSigned: g.Profile == mesh.ProfilePublic,
		},
	}
	if g.AccessToken != "" {
		policy.Providers = []string{g.AccessToken}
	}
	for _, r := range g.Routes {
		policy.Routes = append(policy.Routes, &chancerypb.RoutePolicy{
			Name:        r.ID(),
			Method:      r.Match.Method,
			Path:        r.Match.Path.String(),
			Allow:       r.Allow,
			AccessToken: g.AccessToken,
		})
	}
	return policy
}

// servicePolicy is what the PDPs beside a service decide by.
func servicePolicy(m *mesh.Mesh, s *mesh.Service) *chancerypb.Policy {
	policy := &chancerypb.Policy{
		Name:        serviceID(s.Name).String(),
		TrustDomain: m.TrustDomain,
		Gateways:    s.Gateways,

		ClearPassport: s.TakesClearPassport(),
	}
	for _, r := range s.Routes {
		policy.Routes = append(policy.Routes, &chancerypb.RoutePolicy{
			Name:    r.ID(),
			Method:  r.Match.Method,
			Path:    r.Match.Path.String(),
			Callers: callers(m, r.Callers),
			Allow:   r.Allow,

			Plaintext: r.Plaintext,
		})
	}
	return policy
}

// callers returns the SPIFFE IDs of gateways and services, which share one
// namespace in the documents, sorted.
func callers(m *mesh.Mesh, names []string) []string {
	var ids []string
	for _, name := range names {
		id := serviceID(name)
		if m.Gateway(name) != nil {
			id = gatewayID(name)
		}
		ids = append(ids, id.SPIFFE(m.TrustDomain))
	}
	slices.Sort(ids)
	return ids
}

func gatewayID(name string) identity.ID {
	return identity.ID{Role: identity.RoleGateway, Name: name}
}

func serviceID(name string) identity.ID {
	return identity.ID{Role: identity.RoleService, Name: name}
}
