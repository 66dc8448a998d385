package model_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/chancery-mesh/chancery/mesh"
)

// mend takes back what documents say that could let nobody in, and so does not
// validate.
func (d *documents) mend(faults mesh.Faults) {
	slices.Reverse(faults) // what stands later is taken out first
	for _, fault := range faults {
		switch {
		case fault.Path == "tenants":
			d.gateway.tenants = nil
		case fault.Path == "tenant":
			for i := range d.apiKeys {
				d.apiKeys[i].tenant = ""
			}
		case strings.HasSuffix(fault.Path, "authenticate.tenant"):
			for _, a := range d.demands() {
				a.notNeeded = nil
			}
		default:
			d.gateway.mend(fault.Path)
		}
	}
}

// demands are all that are written.
func (d *documents) demands() []*authenticate {
	all := []*authenticate{d.gateway.authenticate, d.service.authenticate}
	for _, r := range d.gateway.routes {
		all = append(all, r.authenticate)
	}
	for _, r := range d.service.routes {
		all = append(all, r.authenticate)
	}
	return slices.DeleteFunc(all, func(a *authenticate) bool { return a == nil })
}

// mend takes back an alternative, or what is demanded beside credentials of who
// cannot tell.
func (g *gateway) mend(path string) {
	for prefix, a := range g.demands() {
		var n int
		switch after, ok := strings.CutPrefix(path, prefix); {
		case !ok:
		case after == "":
			a.acr, a.amr, a.maxAge, a.registered = nil, nil, 0, new(false)
			if g.authenticate != nil {
				g.authenticate.acr, g.authenticate.amr, g.authenticate.maxAge = nil, nil, 0
			}
		case strings.HasSuffix(after, "introspect"):
			a.introspect = new(false)
		default:
			if _, err := fmt.Sscanf(after, ".anyOf[%d]", &n); err == nil && n < len(a.anyOf) {
				a.anyOf = slices.Delete(a.anyOf, n, n+1)
			}
		}
	}
}

// demands are those of the gateway, by where they stand.
func (g *gateway) demands() map[string]*authenticate {
	all := map[string]*authenticate{}
	if g.authenticate != nil {
		all["authenticate"] = g.authenticate
	}
	for i, r := range g.routes {
		if r.authenticate != nil {
			all[fmt.Sprintf("routes[%d].authenticate", i)] = r.authenticate
		}
	}
	return all
}
