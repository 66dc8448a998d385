package controlplane

import (
	"slices"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/mesh"
)

// scope is whom the Passports of a gateway may speak for.
type scope struct {
	providers []string
	// tenants is nil for any.
	tenants []string
}

func scopeOf(g *mesh.Gateway) scope {
	var s scope
	if g.AccessToken != "" {
		s.providers = []string{g.AccessToken}
	}
	if len(g.Tenants) > 0 {
		s.tenants = slices.Sorted(slices.Values(g.Tenants))
	}
	return s
}

// and returns who is in either.
func (s scope) and(other scope) scope {
	both := scope{providers: union(s.providers, other.providers)}
	if s.tenants != nil && other.tenants != nil {
		both.tenants = union(s.tenants, other.tenants)
	}
	return both
}

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// scopes returns the scope of each gateway that has a view now, or in next: as
// long as a generation may be in use, its Passports are good.
func (vs *views) scopes(next map[identity.ID]*generation) map[string]scope {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	scopes := map[string]scope{}
	add := func(id identity.ID, g *generation) {
		if g == nil || id.Role != identity.RoleGateway {
			return
		}
		s := scopeOf(g.mesh.Gateway(id.Name))
		if had, ok := scopes[id.Name]; ok {
			s = s.and(had)
		}
		scopes[id.Name] = s
	}
	for id, v := range vs.byID {
		add(id, v.latest)
		add(id, v.proven)
	}
	for id, g := range next {
		add(id, g)
		add(id, vs.earlier[id])
	}
	return scopes
}
