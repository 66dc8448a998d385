package envoy_test

import (
	"net/netip"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/envoy"
)

func TestLocalize(t *testing.T) {
	t.Parallel()
	m := chain()
	local := envoy.Local{
		Inbound:     netip.MustParseAddrPort("10.0.0.1:1"),
		Outbound:    netip.MustParseAddrPort("127.0.0.1:2"),
		Application: netip.MustParseAddrPort("127.0.0.1:3"),
	}
	want := map[string]uint32{
		envoy.ListenerGateway: 1, envoy.ListenerInbound: 1, envoy.ListenerOutbound: 2, envoy.ClusterApplication: 3,
	}
	resources := append(envoy.Gateway(m, m.Gateways[0]), envoy.Sidecar(m, m.Service("orders"))...)
	for _, r := range resources {
		before := proto.Clone(r.Message)
		got := envoy.Localize(r.Message, local)
		if !proto.Equal(before, r.Message) {
			t.Errorf("%s was changed in place", r.Name)
		}
		if address := addressOf(r.Name, got); address.GetPortValue() != want[r.Name] {
			t.Errorf("%s is at %v, want port %d", r.Name, address, want[r.Name])
		}
		if _, applies := want[r.Name]; !applies && got != r.Message {
			t.Errorf("%s was copied for nothing", r.Name)
		}
		if envoy.Localize(r.Message, envoy.Local{}) != r.Message {
			t.Errorf("%s was copied for an instance like all", r.Name)
		}
		delete(want, r.Name)
	}
	if len(want) > 0 {
		t.Errorf("no resource for %v", want)
	}
}

func TestLocalizeGenerations(t *testing.T) {
	t.Parallel()
	m := chain()
	local := envoy.Local{Generations: map[string]string{"orders": "2"}}
	changed := 0
	for _, r := range envoy.Gateway(m, m.Gateways[0]) {
		before := proto.Clone(r.Message)
		got := envoy.Localize(r.Message, local)
		if !proto.Equal(before, r.Message) {
			t.Errorf("%s was changed in place", r.Name)
		}
		service, _, _ := strings.Cut(r.Name, "~")
		if _, ok := got.(*clusterv3.Cluster); !ok || service != "orders" {
			if got != r.Message {
				t.Errorf("%s was changed by the generation of another", r.Name)
			}
			continue
		}
		changed++
		if proto.Equal(got, r.Message) {
			t.Errorf("Envoy cannot tell %s from that of an earlier generation", r.Name)
		}
		if again := envoy.Localize(r.Message, local); !proto.Equal(again, got) {
			t.Errorf("%s differs within a generation", r.Name)
		}
	}
	if changed == 0 {
		t.Error("no cluster of the service")
	}
	anyService := envoy.Local{Generations: map[string]string{envoy.AnyService: "3", "orders": "2"}}
	for _, r := range envoy.Sidecar(m, m.Service("orders")) {
		c, ok := envoy.Localize(r.Message, anyService).(*clusterv3.Cluster)
		if !ok {
			continue
		}
		if got, want := c.GetMetadata() != nil, r.Name != envoy.ClusterApplication; got != want {
			t.Errorf("%s has a generation of those that are not named: %v", r.Name, got)
		}
	}
}

// addressOf returns the address of a resource that stands in it, if any.
func addressOf(name string, m proto.Message) *corev3.SocketAddress {
	switch m := m.(type) {
	case *listenerv3.Listener:
		return m.GetAddress().GetSocketAddress()
	case *clusterv3.Cluster:
		if name == envoy.ClusterApplication {
			return m.GetLoadAssignment().GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint().GetAddress().GetSocketAddress()
		}
	}
	return nil
}
