package credential

import (
	"cmp"
	"slices"
	"strings"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/jose"
)

// claimMapping names the claims that the identity is read from. A name is that
// of one member of the claims, dots and all: nothing is looked up by path.
type claimMapping struct {
	user, groups, tenant string
	// client lists alternatives, the first that is there counts.
	client []string
}

func newClaimMapping(m *chancerypb.ClaimMapping) claimMapping {
	mapping := claimMapping{
		user: cmp.Or(m.GetUser(), "sub"), groups: cmp.Or(m.GetGroups(), "groups"), tenant: m.GetTenant(),
		client: []string{"client_id", "azp"},
	}
	if m.GetClient() != "" {
		mapping.client = []string{m.GetClient()}
	}
	return mapping
}

func (m claimMapping) identity(claims jose.Object) (*Identity, error) {
	var id Identity
	var err error
	if id.User, err = identifier(claims, m.user); err != nil || id.User == "" {
		return nil, BadClaim
	}
	if id.Tenant, err = identifier(claims, m.tenant); err != nil {
		return nil, err
	}
	for _, name := range m.client {
		if id.Client, err = identifier(claims, name); err != nil || id.Client != "" {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if id.Groups, err = list(claims, m.groups); err != nil {
		return nil, err
	}
	if id.Scopes, err = list(claims, "scope"); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(id.Scopes, func(s string) bool { return strings.Contains(s, " ") }) {
		return nil, BadClaim
	}
	return &id, nil
}

// identifier reads a claim that names somebody; empty only if it is absent, or
// if no claim is mapped.
func identifier(claims jose.Object, name string) (string, error) {
	if name == "" {
		return "", nil
	}
	s, present, err := claims.String(name)
	if err != nil || present && !jose.IsIdentifier(s) {
		return "", BadClaim
	}
	return s, nil
}

// list reads a claim with names in an array, or in a string where single spaces
// separate them (RFC 6749 section 3.3); nil only if it is absent.
func list(claims jose.Object, name string) ([]string, error) {
	names := []string{}
	switch v := claims[name].(type) {
	case nil:
		if _, present := claims[name]; !present {
			return nil, nil
		}
		return nil, BadClaim
	case string:
		if v != "" {
			names = strings.Split(v, " ")
		}
	default:
		var err error
		if names, _, err = claims.Strings(name); err != nil {
			return nil, BadClaim
		}
	}
	if slices.ContainsFunc(names, func(s string) bool { return !jose.IsIdentifier(s) }) {
		return nil, BadClaim
	}
	return names, nil
}
