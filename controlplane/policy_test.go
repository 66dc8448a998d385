package controlplane_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

func TestPolicies(t *testing.T) {
	t.Parallel()
	idp := down(t)
	docs := withProvider(idp.URL, "claims: {tenant: tenant}\n")
	docs["inventory"] = strings.Replace(inventoryYAML, "[orders]", "[public, orders, plaintext]", 1) +
		"mtls: permissive\nplaintext: {from: [10.0.0.0/8], passport: true}\n"
	docs["public"] += "tenants: [acme]\n"
	r := start(t, docs)
	tests := map[identity.ID]*chancerypb.Policy{
		gateway: {
			Name:        "gateway/public",
			TrustDomain: "shop.example",
			Minting:     &chancerypb.Minting{Lifetime: durationpb.New(time.Minute), Tenants: []string{"acme"}},
			Providers: []*chancerypb.Provider{{
				Name: "staff", Issuer: idp.URL, Audiences: []string{"shop-api"},
				Claims: &chancerypb.ClaimMapping{User: "sub", Groups: "groups", Tenant: "tenant"}, ClockSkew: durationpb.New(30 * time.Second), MaxTokenLifetime: durationpb.New(24 * time.Hour),
			}},
			Accounts:     []string{"clients@102b51b9765a56a3"},
			Destinations: []string{"inventory", "orders"},
			Routes:       []*chancerypb.RoutePolicy{{Path: "/{service}/**", To: "{service}", Authentication: &chancerypb.Authentication{AnyOf: []*chancerypb.Credentials{{AccessToken: "staff"}}, Tenant: true}}},
		},
		inventory: {
			Name:        "service/inventory",
			TrustDomain: "shop.example",
			Gateways:    []string{"public"},

			ClearPassport: true,
			Routes: []*chancerypb.RoutePolicy{{
				Method:  "GET",
				Path:    "/stock/{item}",
				Callers: []string{"spiffe://shop.example/gateway/public", "spiffe://shop.example/service/orders"},
				Allow:   "true",

				Plaintext: true,

				Authentication: &chancerypb.Authentication{Tenant: true},
			}},
		},
	}
	for id, want := range tests {
		c := r.open(id)
		c.Subscribe(policyType, "*")
		var got chancerypb.Policy
		decode(t, c.NextACK(), &got)
		for _, route := range got.GetRoutes() {
			if route.GetName() == "" {
				t.Errorf("%s: a route has no name", id)
			}
		}
		// Routes are named by the mesh.
		ignore := protocmp.IgnoreFields(&chancerypb.RoutePolicy{}, "name", "position")
		defaults := protocmp.IgnoreFields(&chancerypb.Policy{}, "decisions")
		if diff := cmp.Diff(want, &got, protocmp.Transform(), ignore, defaults); diff != "" {
			t.Errorf("%s (-want +got):\n%s", id, diff)
		}
	}
}
