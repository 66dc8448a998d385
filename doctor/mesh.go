package doctor

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/chancery-mesh/chancery/controlplane"
)

// Mesh judges what a control plane tells of itself and of its proxies.
func Mesh(status controlplane.Status, proxies []controlplane.ProxyStatus) []Finding {
	var found []Finding
	if status.NotReady != "" {
		found = append(found, problem("control plane", "chancery status", "is not ready: %s", status.NotReady))
	}
	if !status.Documents.Valid {
		found = append(found, problem(status.Documents.Dir, "chancery validate "+status.Documents.Dir, "documents are not valid: earlier ones are in force"))
	}
	if status.Authority != nil {
		for _, step := range status.Authority.Next {
			if what := step.Problem(); what != "" {
				found = append(found, problem("certificate authority", step.Mend(), "%s", what))
			}
		}
	}
	back := map[[2]string]bool{}
	for _, p := range proxies {
		back[[2]string{p.Name, p.Instance}] = p.Connected || back[[2]string{p.Name, p.Instance}]
	}
	for _, p := range proxies {
		// What went away and joined anew is well.
		if p.Connected || !back[[2]string{p.Name, p.Instance}] {
			found = append(found, proxy(p)...)
		}
	}
	return found
}

func proxy(p controlplane.ProxyStatus) []Finding {
	where := fmt.Sprintf("%s %s", p.Name, p.Instance)
	var found []Finding
	if !p.Connected {
		found = append(found, note(where, "look at its log, unless it is meant to be away", "is not connected to the control plane"))
	}
	for _, what := range p.Problems {
		found = append(found, problem(where, "chancery proxies, and the agent's log", "%s", what))
	}
	return found
}

// Absent finds the gateways and registered services of which no agent is
// connected, however long it is gone.
func Absent(status controlplane.Status, proxies []controlplane.ProxyStatus, instances []Instance) []Finding {
	expected := map[string]string{}
	for _, v := range status.Views {
		if strings.HasPrefix(v.Name, "gateway/") {
			expected[v.Name] = "has a document"
		}
	}
	for _, i := range instances {
		if i.MTLS {
			expected["service/"+i.Service] = "is registered"
		}
	}
	for _, p := range proxies {
		if p.Connected {
			delete(expected, p.Name)
		}
	}
	var found []Finding
	for _, name := range slices.Sorted(maps.Keys(expected)) {
		found = append(found, problem(name, "start its agent, or look at its log: it may have been revoked, or its certificate may have ended",
			"%s, and no agent of it is connected", expected[name]))
	}
	return found
}

// Instances reads what the control plane tells of where services run. What it
// cannot read is a finding.
func Instances(told []controlplane.InstanceStatus) (instances []Instance, found []Finding) {
	for _, t := range told {
		i := Instance{Service: t.Service, ID: t.ID, MTLS: t.MTLS}
		var err error
		if i.Address, err = netip.ParseAddrPort(t.Address); err == nil && t.Mesh != "" {
			i.Mesh, err = netip.ParseAddrPort(t.Mesh)
		}
		if err != nil {
			found = append(found, problem(i.String(), "register it with an IP address and a port", "%v", err))
			continue
		}
		instances = append(instances, i)
	}
	return instances, found
}
