package controlplane_test

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/discovery"
	"github.com/chancery-mesh/chancery/identity"
)

// ports returns the ports of the one assignment in a response.
func ports(t testing.TB, resp *discoveryv3.DeltaDiscoveryResponse) []uint32 {
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
		r.registry.tell("orders", addresses...)
		var want []uint32
		for _, a := range addresses {
			want = append(want, uint32(a[len(a)-1]-'0'))
		}
		if diff := cmp.Diff(want, ports(t, c.NextACK())); diff != "" {
			t.Errorf("endpoints (-want +got):\n%s", diff)
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

// endpointsOf subscribes to the endpoints of a service as a workload that
// holds none.
func (r *rig) endpointsOf(id identity.ID, service string) []uint32 {
	r.t.Helper()
	c := r.open(id)
	defer c.Close()
	c.Subscribe(resource.EndpointType, service)
	return ports(r.t, c.NextACK())
}

// A control plane that is born again knows what the one before knew, until the
// registry speaks.
func TestEndpointsOutliveTheProcess(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	c := r.open(orders)
	c.Subscribe(resource.EndpointType, "inventory")
	c.NextACK()
	r.registry.tell("inventory", "127.0.0.1:1")
	version := c.NextACK().GetResources()[0].GetVersion()

	for range 2 { // the registry says nothing
		r.stop()
		r.start()
		c = r.open(orders)
		c.Resume(resource.EndpointType, map[string]string{"inventory": version}, "inventory")
		expect(t, c.NextACK(), resource.EndpointType)
		c.Quiet(quiet)
		if diff := cmp.Diff([]uint32{1}, r.endpointsOf(orders, "inventory")); diff != "" {
			t.Errorf("a new proxy is given (-want +got):\n%s", diff)
		}
		if got := r.endpointsOf(gateway, "orders"); got != nil {
			t.Errorf("of what nobody ever knew: %v, want an explicit nothing", got)
		}
		if s := r.status().Services[0]; !s.Held || s.Instances != 1 || s.Reason == "" {
			t.Errorf("status %+v", s)
		}
	}
	r.registry.tell("inventory", "127.0.0.1:2") // late
	if diff := cmp.Diff([]uint32{2}, ports(t, c.NextACK())); diff != "" {
		t.Errorf("endpoints (-want +got):\n%s", diff)
	}
	r.registry.tell("inventory")
	if got := ports(t, c.NextACK()); got != nil {
		t.Errorf("endpoints %v, want none", got)
	}
	if s := r.status().Services[0]; s.Held {
		t.Errorf("status %+v", s)
	}
}

func TestEndpointsAreSavedWithinASecond(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.dial(orders)
	saved := r.state + "/endpoints.json"
	if err := os.MkdirAll(saved+"/in the way", 0o700); err != nil {
		t.Fatal(err)
	}
	r.registry.tell("inventory", "127.0.0.1:1")
	r.until("the fault shows", func() bool { return r.log.has("state not saved") })
	if err := os.RemoveAll(saved); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"127.0.0.1:1", "127.0.0.1:2"} {
		r.until(address+" is on disk", func() bool {
			data, err := os.ReadFile(saved)
			return err == nil && strings.Contains(string(data), address)
		})
		r.registry.tell("inventory", "127.0.0.1:2")
	}
	if got := r.log.count("state not saved"); got != 1 {
		t.Errorf("told %d times, want once", got)
	}
}

// What an earlier process knew of a service is worth nothing once nobody used
// it.
func TestEndpointsOfServicesThatNobodyUsedAreForgotten(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.dial(orders)
	r.registry.tell("inventory", "127.0.0.1:1")
	r.until("it is known", func() bool { return r.status().Services[0].Instances == 1 })
	r.stop()
	r.write("orders", strings.Replace(ordersYAML, "uses: [inventory]\n", "", 1))
	r.write("inventory", strings.Replace(inventoryYAML, "[orders]", "[]", 1))
	r.start()
	r.dial(orders)
	r.write("orders", ordersYAML)
	r.write("inventory", inventoryYAML)
	r.until("it is used again", func() bool { return r.registry.wants("inventory", "orders") })
	if got := r.endpointsOf(orders, "inventory"); got != nil {
		t.Errorf("endpoints %v, want none", got)
	}
}

func TestSpoiltEndpointsAreNotUsed(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.dial(orders)
	r.stop()
	if err := os.WriteFile(r.state+"/endpoints.json", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	if got := r.endpointsOf(orders, "inventory"); got != nil || !r.log.has("not used") {
		t.Errorf("endpoints %v; is it told: %v", got, r.log.has("not used"))
	}
}
