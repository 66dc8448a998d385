package consul

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"

	"github.com/hashicorp/consul/api"

	"github.com/chancery-mesh/chancery/discovery"
)

// meshAddress is the tagged address where a sidecar says that it listens.
const meshAddress = "mesh"

// instances returns those that may take traffic, and a line for each that can
// be no instance of the mesh.
func instances(service string, entries []*api.ServiceEntry, networks discovery.Networks) (all []discovery.Instance, skipped []string) {
	for n, e := range entries {
		if e == nil || e.Node == nil || e.Service == nil || e.Service.Service != service {
			skipped = append(skipped, fmt.Sprintf("entry %d is not of this service", n))
			continue
		}
		health, weight := healthOf(e)
		if weight < 1 {
			continue
		}
		// A service's ID is unique on its node alone.
		i := discovery.Instance{ID: e.Node.Node + "/" + e.Service.ID, Health: health, Weight: uint32(weight)}
		if err := setAddresses(&i, e, networks); err != nil {
			skipped = append(skipped, fmt.Sprintf("%q: %v", i.ID, err))
			continue
		}
		all = append(all, i)
	}
	return all, skipped
}

// healthOf returns the health and the weight of an instance; weight 0 takes no
// traffic.
func healthOf(e *api.ServiceEntry) (discovery.Health, int) {
	switch e.Checks.AggregatedStatus() {
	case api.HealthPassing:
		// A registration that says nothing of weights may come without them.
		return discovery.Passing, cmp.Or(e.Service.Weights.Passing, 1)
	case api.HealthWarning:
		return discovery.Warning, e.Service.Weights.Warning
	}
	return "", 0
}

// setAddresses sets both or fails: an instance whose mesh address is wrong must
// not pass for one that has no sidecar.
func setAddresses(i *discovery.Instance, e *api.ServiceEntry, networks discovery.Networks) error {
	host := cmp.Or(e.Service.Address, e.Node.Address)
	var err, meshErr error
	i.Address, err = networks.Parse(host, e.Service.Port)
	i.Mesh, meshErr = meshOf(e.Service, host, networks)
	return errors.Join(err, meshErr)
}

func meshOf(s *api.AgentService, host string, networks discovery.Networks) (netip.AddrPort, error) {
	mesh, ok := s.TaggedAddresses[meshAddress]
	if !ok {
		return netip.AddrPort{}, nil
	}
	return networks.Parse(cmp.Or(mesh.Address, host), mesh.Port)
}
