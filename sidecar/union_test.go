package sidecar_test

import (
	"slices"
	"testing"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/sidecar"
)

// Of routes that only an earlier policy has, those stay that the later one would
// let in nobody by whom it does not know, and that ask what it asks.
func TestUnionOfPolicies(t *testing.T) {
	t.Parallel()
	by := func(c *chancerypb.Credentials) *chancerypb.Authentication {
		return &chancerypb.Authentication{AnyOf: []*chancerypb.Credentials{c}}
	}
	certificate := func(name string) *chancerypb.Credentials {
		return &chancerypb.Credentials{Certificate: &chancerypb.CertificateRule{Names: []string{name}}}
	}
	rego := func(text string) *chancerypb.Rego {
		return &chancerypb.Rego{Name: "orders", Modules: []*chancerypb.RegoModule{{File: "orders.rego", Text: text}}}
	}
	const always = "package orders\nallow := true\n"
	asks := &chancerypb.RegoRule{Module: "orders", Query: "data.orders.allow"}
	anybody := &chancerypb.Authentication{Anonymous: true}
	after := &chancerypb.Policy{
		Name: "gateway/public", TrustDomain: "shop.example", Providers: []*chancerypb.Provider{{Name: "staff"}},
		Accounts: []string{"clients", "users/keepers", "apikeys/00"},
		Routes: []*chancerypb.RoutePolicy{
			{Name: "shared", Path: "/shared", Authentication: by(&chancerypb.Credentials{AccessToken: "staff"})},
			{Name: "partners", Path: "/partners", Authentication: by(certificate("partner.example"))},
		},
	}
	for name, row := range map[string]struct {
		route *chancerypb.RoutePolicy
		rego  *chancerypb.Rego
		keys  bool
		stays bool
	}{
		"token":                    {route: &chancerypb.RoutePolicy{Authentication: by(&chancerypb.Credentials{AccessToken: "staff"})}, stays: true},
		"token of another":         {route: &chancerypb.RoutePolicy{Authentication: by(&chancerypb.Credentials{AccessToken: "old"})}},
		"ID token of another":      {route: &chancerypb.RoutePolicy{Authentication: by(&chancerypb.Credentials{AccessToken: "staff", IdToken: "old"})}},
		"users":                    {route: &chancerypb.RoutePolicy{Authentication: by(&chancerypb.Credentials{Basic: "keepers"})}, stays: true},
		"other users":              {route: &chancerypb.RoutePolicy{Authentication: by(&chancerypb.Credentials{Basic: "partners"})}},
		"API key":                  {route: &chancerypb.RoutePolicy{Authentication: by(&chancerypb.Credentials{ApiKey: true})}, stays: true},
		"API key, none taken":      {route: &chancerypb.RoutePolicy{Authentication: by(&chancerypb.Credentials{ApiKey: true})}, keys: true},
		"certificate":              {route: &chancerypb.RoutePolicy{Authentication: by(certificate("partner.example"))}, stays: true},
		"certificate of another":   {route: &chancerypb.RoutePolicy{Authentication: by(certificate("old.example"))}},
		"Rego that is gone":        {route: &chancerypb.RoutePolicy{Authentication: anybody, Rego: asks}},
		"Rego that is another now": {route: &chancerypb.RoutePolicy{Authentication: anybody, Rego: asks}, rego: rego("package orders\nallow := false\n")},
		"Rego":                     {route: &chancerypb.RoutePolicy{Authentication: anybody, Rego: asks}, rego: rego(always), stays: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			row.route.Name, row.route.Path = "old", "/old"
			before := &chancerypb.Policy{
				Name: "gateway/public", TrustDomain: "shop.example", Rego: []*chancerypb.Rego{rego(always)},
				Routes: []*chancerypb.RoutePolicy{row.route, {Name: "shared", Path: "/shared", Authentication: anybody}},
			}
			next := &chancerypb.Policy{
				Name: after.GetName(), TrustDomain: after.GetTrustDomain(), Providers: after.GetProviders(),
				Accounts: after.GetAccounts(), Routes: after.GetRoutes(),
			}
			if row.keys {
				next.Accounts = []string{"clients"}
			}
			if row.rego != nil {
				next.Rego = []*chancerypb.Rego{row.rego}
			}
			both := sidecar.Union(before, next)
			stays := slices.ContainsFunc(both.GetRoutes(), func(r *chancerypb.RoutePolicy) bool { return r.GetName() == "old" })
			if stays != row.stays {
				t.Errorf("stays: %v, want %v", stays, row.stays)
			}
			if both.GetRoutes()[0].GetAuthentication().GetAnonymous() {
				t.Error("a route that both have is as before")
			}
			if _, err := extauthz.Compile(both); err != nil {
				t.Errorf("both cannot be decided by: %v", err)
			}
		})
	}
}
