package sidecar

import (
	"strings"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/internal/xds"
)

// servedTypes are those of a revision that Envoy gets.
var servedTypes = []string{resource.ClusterType, resource.ListenerType, resource.RouteType}

// localize returns the resources of a revision that Envoy gets, as this
// instance has them.
func localize(rev *revision, local envoy.Local) (map[string]set, error) {
	sets := make(map[string]set, len(servedTypes))
	for _, typeURL := range servedTypes {
		sets[typeURL] = make(set, len(rev.sets[typeURL]))
		for name, r := range rev.sets[typeURL] {
			l, err := localizeResource(r, local)
			if err != nil {
				return nil, err
			}
			sets[typeURL][name] = l
		}
	}
	return sets, nil
}

func localizeResource(r *xds.Resource, local envoy.Local) (*xds.Resource, error) {
	m, err := decode(r)
	if err != nil {
		return nil, err
	}
	here := envoy.Localize(m, local)
	if here == m {
		return r, nil
	}
	l, err := xds.New(r.Name, here)
	if err != nil {
		return nil, err
	}
	return xds.FromDelta(&discoveryv3.Resource{
		Name:     l.Name,
		Version:  r.Version + localMark + l.Version,
		Resource: l.Delta().GetResource(),
	}), nil
}

// localMark parts the control plane's version from that of the local copy.
const localMark = "+"

// origin returns the control plane's version of a local resource.
func origin(version string) string {
	v, _, _ := strings.Cut(version, localMark)
	return v
}
