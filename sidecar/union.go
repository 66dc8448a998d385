package sidecar

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/extauthz/translate"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// union returns policy with the routes that only before has: Envoy may yet ask
// for them. A route that demands what policy no longer takes, or asks a Rego
// policy that is another now, is left out.
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
		if !known[route.GetName()] && takes(policy, route) && asksTheSame(before, policy, route) {
			both.Routes = append(both.Routes, route)
		}
	}
	return both
}

// takes reports whether all credentials of a route are such as policy takes.
func takes(policy *chancerypb.Policy, route *chancerypb.RoutePolicy) bool {
	return !slices.ContainsFunc(route.GetAuthentication().GetAnyOf(), func(c *chancerypb.Credentials) bool {
		return !takesCredentials(policy, c)
	})
}

func takesCredentials(policy *chancerypb.Policy, c *chancerypb.Credentials) bool {
	providers, accounts := translate.ProviderNames(policy), policy.GetAccounts()
	switch {
	case c.GetAccessToken() != "" && !slices.Contains(providers, c.GetAccessToken()),
		c.GetIdToken() != "" && !slices.Contains(providers, c.GetIdToken()),
		c.GetBasic() != "" && !slices.Contains(accounts, translate.UsersName(c.GetBasic())),
		c.GetApiKey() && !slices.ContainsFunc(accounts, translate.IsKeysName):
		return false
	}
	return c.GetCertificate() == nil || slices.ContainsFunc(policy.GetRoutes(), func(route *chancerypb.RoutePolicy) bool {
		return slices.ContainsFunc(route.GetAuthentication().GetAnyOf(), func(other *chancerypb.Credentials) bool {
			return proto.Equal(c.GetCertificate(), other.GetCertificate())
		})
	})
}

// asksTheSame reports whether a route's Rego policy is in both policies, and the
// same.
func asksTheSame(before, policy *chancerypb.Policy, route *chancerypb.RoutePolicy) bool {
	name := route.GetRego().GetModule()
	return route.GetRego() == nil || proto.Equal(regoNamed(before, name), regoNamed(policy, name))
}

func regoNamed(policy *chancerypb.Policy, name string) *chancerypb.Rego {
	for _, r := range policy.GetRego() {
		if r.GetName() == name {
			return r
		}
	}
	return nil
}
