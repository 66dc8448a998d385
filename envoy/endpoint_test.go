package envoy_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/discovery"
	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/mesh"
)

func TestEndpoints(t *testing.T) {
	t.Parallel()
	address, sidecar := netip.MustParseAddrPort("10.0.0.1:8080"), netip.MustParseAddrPort("[::ffff:10.0.0.1]:21000")
	tests := []struct {
		name      string
		sidecars  bool
		instances []instance
		want      string
	}{
		{
			"sidecars are at mesh addresses alone", true,
			[]instance{{ID: "a", Address: address, Mesh: sidecar, Weight: 3, Health: discovery.Passing}, {ID: "b", Address: address}},
			`cluster_name: orders
endpoints:
- lb_endpoints:
  - endpoint:
      address:
        socket_address:
          address: 10.0.0.1
          port_value: 21000
    health_status: HEALTHY
    load_balancing_weight: 3
`,
		},
		{
			"past them is the service's own", false,
			[]instance{{ID: "a", Address: address, Mesh: sidecar, Health: discovery.Warning}},
			`cluster_name: orders
endpoints:
- lb_endpoints:
  - endpoint:
      address:
        socket_address:
          address: 10.0.0.1
          port_value: 8080
    health_status: DEGRADED
    load_balancing_weight: 1
`,
		},
		{"none is a resource, too", true, nil, "cluster_name: orders\n"},
		{"none with a sidecar", true, []instance{{ID: "a", Address: address}}, "cluster_name: orders\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := envoy.YAML(envoy.Endpoints("orders", tt.sidecars, tt.instances))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("endpoints (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEndpointNames(t *testing.T) {
	t.Parallel()
	m := chain()
	breaker := route("guarded", "/guarded")
	breaker.CircuitBreaker = &mesh.CircuitBreaker{}
	inventory := m.Service("inventory")
	inventory.Routes = append(inventory.Routes, breaker)
	got := envoy.EndpointNames(envoy.Sidecar(m, m.Service("orders")))
	if diff := cmp.Diff([]string{"inventory", "legacy"}, got); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}
