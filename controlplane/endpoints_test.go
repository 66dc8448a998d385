package controlplane_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/discovery"
)

// ports returns the ports of the one assignment in a response.
func ports(t *testing.T, resp *discoveryv3.DeltaDiscoveryResponse) []uint32 {
	t.Helper()
	var assignment endpointv3.ClusterLoadAssignment
	decode(t, resp, &assignment)
	var ports []uint32
	for _, locality := range assignment.GetEndpoints() {
		for _, e := range locality.GetLbEndpoints() {
			ports = append(ports, e.GetEndpoint().GetAddress().GetSocketAddress().GetPortValue())
		}
	}
	return ports
}

func TestEndpoints(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	c := r.open(gateway)
	c.Subscribe(resource.EndpointType, "orders")
	if got := ports(t, c.NextACK()); got != nil {
		t.Errorf("before the registry has spoken: %v, want an explicit nothing", got)
	}
	for _, addresses := range [][]string{{"127.0.0.1:1", "127.0.0.1:2"}, {"127.0.0.1:2"}, nil} {
		start := time.Now()
		r.registry.tell("orders", addresses...)
		var want []uint32
		for _, a := range addresses {
			want = append(want, uint32(a[len(a)-1]-'0'))
		}
		if diff := cmp.Diff(want, ports(t, c.NextACK())); diff != "" {
			t.Errorf("endpoints (-want +got):\n%s", diff)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("took %v", took)
		}
	}
	r.registry.tell("orders")
	r.registry.tell("inventory", "127.0.0.1:3")
	r.registry.tell("never-heard-of", "127.0.0.1:4")
	c.Quiet(quiet)
}

func TestEndpointsFollowTheWayIn(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	c := r.open(gateway)
	c.Subscribe(resource.EndpointType, "orders")
	c.NextACK()
	r.registry.updates <- discovery.Update{Service: "orders", Instances: []discovery.Instance{
		{ID: "1", Address: netip.MustParseAddrPort("127.0.0.1:1"), Health: discovery.Passing},
	}}
	c.Quiet(quiet) // strict: there is no mesh address
	r.write("orders", ordersYAML+"mtls: off\n")
	if diff := cmp.Diff([]uint32{1}, ports(t, c.NextACK())); diff != "" {
		t.Errorf("endpoints (-want +got):\n%s", diff)
	}
}

// A service is wanted as long as any view refers to it: the latest, or the one
// that new proxies are still given.
func TestWhoIsWanted(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.until("what is used is wanted", func() bool { return r.registry.wants("inventory", "orders") })
	before := r.accept(orders)
	tester := r.open(orders)
	tester.Subscribe(resource.EndpointType, "inventory")
	expect(t, tester.NextACK(), resource.EndpointType, "+inventory")

	r.remove("inventory")
	r.write("orders", strings.Replace(ordersYAML, "uses: [inventory]\n", "", 1))
	r.revised(orders, before)
	late := r.open(orders)
	late.Subscribe(resource.EndpointType, "inventory")
	expect(t, late.NextACK(), resource.EndpointType, "+inventory")
	if !r.registry.wants("inventory", "orders") {
		t.Error("what the proven revision refers to is not wanted")
	}
	tester.Quiet(quiet)

	r.accept(orders)
	expect(t, tester.NextACK(), resource.EndpointType, "-inventory")
	r.until("only what is used is wanted", func() bool { return r.registry.wants("orders") })
}
