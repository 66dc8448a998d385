package envoy_test

import (
	"slices"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/internal/golden"
	"github.com/chancery-mesh/chancery/mesh"
)

// Row F10 of the attacks: whatever the documents, a way in to an upstream names
// its policy, only direct responses are unchecked, and no request is without a
// route, since Envoy does not check those.
func TestEveryRouteIsProtected(t *testing.T) {
	t.Parallel()
	golden.Each(t, "testdata/*.txtar", func(t *testing.T, input golden.Files) {
		m, err := mesh.Parse("input.yaml", []byte(input["input.yaml"])).Compile(mesh.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range m.Gateways {
			protected(t, envoy.Gateway(m, g))
		}
		for _, s := range m.Services {
			protected(t, envoy.Sidecar(m, s))
		}
	})
}

func protected(t *testing.T, resources []envoy.Resource) {
	t.Helper()
	for _, r := range resources {
		config, ok := r.Message.(*routev3.RouteConfiguration)
		if !ok {
			continue
		}
		hosts := config.GetVirtualHosts()
		if !slices.Equal(hosts[len(hosts)-1].GetDomains(), []string{"*"}) {
			t.Errorf("%s: some host is without a virtual host", r.Name)
		}
		for _, host := range hosts {
			routes := host.GetRoutes()
			last := routes[len(routes)-1]
			if last.GetMatch().GetPrefix() != "/" || len(last.GetMatch().GetHeaders()) > 0 || last.GetDirectResponse() == nil {
				t.Errorf("%s: some request is without a route", host.GetName())
			}
			for _, route := range routes {
				if r.Name != envoy.ListenerOutbound { // the other end judges
					checkProtection(t, route)
				}
			}
		}
	}
}

func checkProtection(t *testing.T, route *routev3.Route) {
	t.Helper()
	config := &extauthzv3.ExtAuthzPerRoute{}
	if err := route.GetTypedPerFilterConfig()["envoy.filters.http.ext_authz"].UnmarshalTo(config); err != nil {
		t.Errorf("%s: %v", route.GetName(), err)
		return
	}
	extensions := config.GetCheckSettings().GetContextExtensions()
	checked := extensions[envoy.ContextPolicy] != "" && extensions[envoy.ContextRoute] != ""
	if direct := route.GetDirectResponse() != nil; direct == checked || direct != config.GetDisabled() {
		t.Errorf("%s: direct response %t, checked %t", route.GetName(), direct, checked)
	}
}
