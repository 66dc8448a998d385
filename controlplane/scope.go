package controlplane

import (
	"slices"
	"time"

	"github.com/chancery-mesh/chancery/extauthz/translate"
	"github.com/chancery-mesh/chancery/mesh"
)

// scope is whom the Passports of a gateway may speak for.
type scope struct {
	providers []string
	// tenants is nil for any.
	tenants []string
}

func scopeOf(g *mesh.Gateway) scope {
	s := scope{providers: translate.MayVouch(g)}
	if len(g.Tenants) > 0 {
		s.tenants = slices.Sorted(slices.Values(g.Tenants))
	}
	return s
}

// scopesOf returns the scope of each gateway by its document, whatever of it the
// gateway itself has in quarantine.
func scopesOf(m *mesh.Mesh) map[string]scope {
	scopes := map[string]scope{}
	for _, g := range m.Gateways {
		scopes[g.Name] = scopeOf(g)
	}
	return scopes
}

// and returns who is in either.
func (s scope) and(other scope) scope {
	both := scope{providers: union(s.providers, other.providers)}
	if s.tenants != nil && other.tenants != nil {
		both.tenants = union(s.tenants, other.tenants)
	}
	return both
}

func (s scope) equal(other scope) bool {
	return slices.Equal(s.providers, other.providers) && slices.Equal(s.tenants, other.tenants) &&
		(s.tenants == nil) == (other.tenants == nil)
}

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// scopeGrace is how long a gateway may take to follow its document. What it
// signed until then is good for a Passport's life.
const scopeGrace = 30 * time.Second

// grant is the scope of a gateway, and those that it had lately.
type grant struct {
	scope
	former []formerScope
}

type formerScope struct {
	scope
	until time.Time
}

// change returns the grant with another scope; that of before goes on for a
// while, whatever the gateway says.
func (g grant) change(s scope, overlap time.Duration) grant {
	if s.equal(g.scope) {
		return g
	}
	return grant{s, append(slices.Clone(g.former), formerScope{g.scope, time.Now().Add(overlap)})}
}

// total returns everybody that the gateway may speak for at present.
func (g grant) total() scope {
	s := g.scope
	for _, f := range g.former {
		s = s.and(f.scope)
	}
	return s
}

// expire returns the grant without what has ended, and whether anything has.
func (g grant) expire(now time.Time) (grant, bool) {
	left := slices.DeleteFunc(slices.Clone(g.former), func(f formerScope) bool { return now.After(f.until) })
	return grant{g.scope, left}, len(left) < len(g.former)
}
