// Package consultest gives tests a Consul: [Start] the real one, or [NewFake],
// which speaks the same health endpoint in-process and breaks on demand.
package consultest

import (
	"net/netip"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/chancery-mesh/chancery/discovery"
)

// Entry returns what Consul says of an instance. An ID "a/b" is service ID b on
// node a; without a slash the node is the service's own, since an ID names one
// service of a node.
func Entry(service string, i discovery.Instance) *api.ServiceEntry {
	node, id, ok := strings.Cut(i.ID, "/")
	if !ok {
		node, id = service, i.ID
	}
	e := &api.ServiceEntry{
		Node: &api.Node{Node: node, Address: "10.255.255.1"},
		Service: &api.AgentService{
			ID: id, Service: service,
			Address: i.Address.Addr().String(), Port: int(i.Address.Port()),
			Weights: api.AgentWeights{Passing: int(i.Weight), Warning: int(i.Weight)},
		},
		Checks: api.HealthChecks{{
			Node: node, CheckID: "check-" + id, Name: "check", ServiceID: id, ServiceName: service,
			Status: string(i.Health),
		}},
	}
	if i.Mesh != (netip.AddrPort{}) {
		e.Service.TaggedAddresses = map[string]api.ServiceAddress{
			"mesh": {Address: i.Mesh.Addr().String(), Port: int(i.Mesh.Port())},
		}
	}
	return e
}
