// Package translate turns the documents of a mesh into what policy decision
// points run on: policies, identity providers and accounts, as package
// chancerypb has them.
//
// It is pure: no clocks, no network, no keys. What is fetched (the keys of
// identity providers) is added by who fetches it.
package translate

import (
	"cmp"
	"maps"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/mesh"
)

// Gateway returns what the PDPs beside a gateway decide by.
func Gateway(m *mesh.Mesh, g *mesh.Gateway) *chancerypb.Policy {
	p := policy(m, identity.ID{Role: identity.RoleGateway, Name: g.Name}, g.Answers)
	p.Minting = &chancerypb.Minting{
		Lifetime:         durationpb.New(m.PassportLifetime),
		Tenants:          g.Tenants,
		RefuseSelfSigned: g.Profile == mesh.ProfilePublic,
	}
	p.Accounts = AccountNames(g)
	for _, name := range providerNames(g) {
		p.Providers = append(p.Providers, Provider(m.Provider(name)))
	}
	p.Decisions = decisions(g.Decisions)
	for _, r := range g.Routes {
		if _, ok := r.ToVariable(); ok && p.Destinations == nil {
			for _, s := range m.Destinations(g) {
				p.Destinations = append(p.Destinations, s.Name)
			}
		}
		p.Routes = append(p.Routes, &chancerypb.RoutePolicy{
			Name:           r.ID(),
			Method:         r.Match.Method,
			Path:           r.Match.Path.String(),
			Allow:          r.Allow,
			Position:       position(r.Allow, r.AllowPosition),
			Authentication: authentication(r.Authentication),
			Bind:           r.Bind,
			MaxBody:        r.MaxBody,
			To:             r.To,
			Rego:           regoRule(p, m, r.Rego),
		})
	}
	return p
}

// Service returns what the PDPs beside a service decide by.
func Service(m *mesh.Mesh, s *mesh.Service) *chancerypb.Policy {
	p := policy(m, identity.ID{Role: identity.RoleService, Name: s.Name}, s.Answers)
	p.Gateways, p.ClearPassport = s.Gateways, s.TakesClearPassport()
	p.Decisions = decisions(m.Decisions)
	for _, r := range s.Routes {
		p.Routes = append(p.Routes, &chancerypb.RoutePolicy{
			Name:           r.ID(),
			Method:         r.Match.Method,
			Path:           r.Match.Path.String(),
			Callers:        callers(m, r.Callers),
			Allow:          r.Allow,
			Position:       position(r.Allow, r.AllowPosition),
			Authentication: authentication(r.Authentication),
			MaxBody:        r.MaxBody,
			Plaintext:      r.Plaintext,
			Rego:           regoRule(p, m, r.Rego),
		})
	}
	return p
}

// regoRule returns what a route asks of a policy, which it adds to p.
func regoRule(p *chancerypb.Policy, m *mesh.Mesh, rule *mesh.RegoRule) *chancerypb.RegoRule {
	if rule == nil {
		return nil
	}
	known := slices.ContainsFunc(p.GetRego(), func(r *chancerypb.Rego) bool { return r.GetName() == rule.Module })
	if r := m.RegoPolicy(rule.Module); r != nil && !known {
		policy := &chancerypb.Rego{Name: r.Name, V0: r.V0}
		for _, module := range r.Modules {
			policy.Modules = append(policy.Modules, &chancerypb.RegoModule{File: module.File, Text: module.Text})
		}
		p.Rego = append(p.Rego, policy)
	}
	return &chancerypb.RegoRule{Module: rule.Module, Query: rule.Query}
}

// position tells where a rule stands, by the name of the file alone: the
// directory may be another one elsewhere.
func position(rule string, p mesh.Position) string {
	if rule == "" {
		return ""
	}
	p.File = filepath.Base(p.File)
	return p.String()
}

func policy(m *mesh.Mesh, id identity.ID, answers mesh.Answers) *chancerypb.Policy {
	p := &chancerypb.Policy{
		Name: id.String(), TrustDomain: m.TrustDomain, DenyStatus: answers.DenyStatus, Data: map[string][]byte{},
	}
	if answers.MaxStaleness > 0 {
		p.MaxStaleness = durationpb.New(answers.MaxStaleness)
	}
	for _, r := range m.Roles {
		p.Roles = append(p.Roles, &chancerypb.Role{Name: r.Name, Groups: r.Groups, Permissions: r.Permissions})
	}
	for _, d := range m.Data {
		if slices.Contains(answers.Data, d.Name) {
			p.Data[d.Name] = d.JSON
		}
	}
	return p
}

func decisions(d mesh.Decisions) *chancerypb.Decisions {
	log := map[mesh.DecisionLog]chancerypb.Decisions_Log{
		mesh.DecisionLogRequired: chancerypb.Decisions_REQUIRED, mesh.DecisionLogOff: chancerypb.Decisions_OFF,
	}
	r := d.Redact
	return &chancerypb.Decisions{Log: log[d.Log], User: r.User, Tenant: r.Tenant, Client: r.Client, Ip: r.IP, Path: r.Path}
}

func authentication(a mesh.Authentication) *chancerypb.Authentication {
	out := &chancerypb.Authentication{
		Anonymous: a.Anonymous, Introspect: a.Introspect, Acr: a.ACR, Amr: a.AMR,
		RegisteredClients: a.RegisteredClients, Tenant: a.Tenant,
	}
	if a.MaxAge > 0 {
		out.MaxAge = durationpb.New(a.MaxAge)
	}
	for _, c := range a.AnyOf {
		all := &chancerypb.Credentials{AccessToken: c.AccessToken, IdToken: c.IDToken, ApiKey: c.APIKey, Basic: c.Basic}
		if rule := c.Certificate; rule != nil {
			all.Certificate = &chancerypb.CertificateRule{Names: rule.Names, Subjects: rule.Subjects}
		}
		out.AnyOf = append(out.AnyOf, all)
	}
	return out
}

// ProviderNames returns the names of the providers of a policy.
func ProviderNames(p *chancerypb.Policy) []string {
	var names []string
	for _, provider := range p.GetProviders() {
		names = append(names, provider.GetName())
	}
	return names
}

// providerNames returns the names of the providers whose tokens a gateway takes,
// sorted.
func providerNames(g *mesh.Gateway) []string {
	names := map[string]bool{}
	for _, a := range g.Authentications() {
		for _, c := range a.AnyOf {
			names[c.AccessToken], names[c.IDToken] = true, true
		}
	}
	delete(names, "")
	return slices.Sorted(maps.Keys(names))
}

// callers returns the SPIFFE IDs of gateways and services, which share one
// namespace in the documents, sorted.
func callers(m *mesh.Mesh, names []string) []string {
	var ids []string
	for _, name := range names {
		id := identity.ID{Role: identity.RoleService, Name: name}
		if m.Gateway(name) != nil {
			id.Role = identity.RoleGateway
		}
		ids = append(ids, id.SPIFFE(m.TrustDomain))
	}
	slices.Sort(ids)
	return ids
}

// Provider returns what PDPs know of an identity provider, but for its keys.
func Provider(d *mesh.IdentityProvider) *chancerypb.Provider {
	p := &chancerypb.Provider{
		Name:      d.Name,
		Issuer:    d.Issuer,
		Audiences: d.Audiences,
		Claims: &chancerypb.ClaimMapping{
			User: d.Claims.User, Groups: d.Claims.Groups, Tenant: d.Claims.Tenant, Client: d.Claims.Client,
		},
		Tenants:          d.Tenants,
		ClockSkew:        durationpb.New(d.ClockSkew),
		IdTokenAudiences: d.IDTokenAudiences,
		Opaque:           d.Opaque,
		MaxTokenLifetime: durationpb.New(d.MaxTokenLifetime),
	}
	if i := d.Introspection; i != nil {
		p.Introspection = &chancerypb.Introspection{
			Endpoint: i.Endpoint, Client: i.Client, Secret: i.Secret, Cache: durationpb.New(i.Cache),
			Rate: i.Rate, AllowPrivate: d.AllowPrivate,
		}
	}
	return p
}

// MayVouch returns the names of those that the Passports of a gateway may speak
// for, sorted: its identity providers, and what stands for them.
func MayVouch(g *mesh.Gateway) []string {
	names := map[string]bool{}
	for _, a := range g.Authentications() {
		for _, c := range a.AnyOf {
			names[c.Source()] = true
		}
	}
	return slices.SortedFunc(maps.Keys(names), cmp.Compare[string])
}
