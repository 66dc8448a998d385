package envoy

import (
	"net/netip"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/chancery-mesh/chancery/discovery"
)

// EndpointsName returns the name of the one endpoint resource that all clusters
// of a service share.
func EndpointsName(service string) string { return service }

// EndpointNames returns the names of the endpoint resources that the clusters
// among resources need, sorted.
func EndpointNames(resources []Resource) []string {
	var names []string
	for _, r := range resources {
		if c, ok := r.Message.(*clusterv3.Cluster); ok && c.GetType() == clusterv3.Cluster_EDS {
			names = append(names, c.GetEdsClusterConfig().GetServiceName())
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Endpoints returns where a service is reached: at the sidecars of its instances,
// where those without one are left out, or past them. An instance takes traffic by its weight (0 is 1); one in state warning only as
// far as the passing ones cannot carry it. A service without instances is a
// resource without endpoints: Envoy would wait for one that is not there.
func Endpoints(service string, sidecars bool, instances []discovery.Instance) *endpointv3.ClusterLoadAssignment {
	assignment := &endpointv3.ClusterLoadAssignment{ClusterName: EndpointsName(service)}
	var endpoints []*endpointv3.LbEndpoint
	for _, i := range instances {
		addr := i.Mesh
		if !sidecars {
			addr = i.Address
		}
		if addr.IsValid() {
			endpoints = append(endpoints, lbEndpoint(addr, i.Weight, i.Health))
		}
	}
	if len(endpoints) > 0 {
		assignment.Endpoints = []*endpointv3.LocalityLbEndpoints{{LbEndpoints: endpoints}}
	}
	return assignment
}

func lbEndpoint(addr netip.AddrPort, weight uint32, health discovery.Health) *endpointv3.LbEndpoint {
	status := corev3.HealthStatus_HEALTHY
	if health == discovery.Warning {
		status = corev3.HealthStatus_DEGRADED
	}
	return &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
			Endpoint: &endpointv3.Endpoint{Address: socketAddress(addr)},
		},
		HealthStatus:        status,
		LoadBalancingWeight: wrapperspb.UInt32(max(1, weight)),
	}
}

func socketAddress(addr netip.AddrPort) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{
		SocketAddress: &corev3.SocketAddress{
			Address:       addr.Addr().Unmap().String(),
			PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(addr.Port())},
		},
	}}
}

func pipe(path string, mode uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path, Mode: mode}}}
}

// staticEndpoint is the load assignment of a cluster with one fixed address.
func staticEndpoint(cluster string, address *corev3.Address) *endpointv3.ClusterLoadAssignment {
	return &endpointv3.ClusterLoadAssignment{
		ClusterName: cluster,
		Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
					Endpoint: &endpointv3.Endpoint{Address: address},
				},
			}},
		}},
	}
}
