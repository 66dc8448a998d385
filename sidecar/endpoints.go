package sidecar

import (
	"maps"
	"slices"
	"sync"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/internal/xds"
)

// endpoints passes endpoints on to Envoy. They come at their own pace as well
// as with revisions; the lock keeps the older of two from coming last.
type endpoints struct {
	held   *held
	served *xds.Collection
	mu     sync.Mutex
}

// put passes on what has just changed.
func (e *endpoints) put(changed []*xds.Resource) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.served.Apply(changed)
}

// fill passes on what is held and Envoy was not given.
func (e *endpoints) fill() {
	e.mu.Lock()
	defer e.mu.Unlock()
	served := e.served.Versions()
	missing := e.held.set(resource.EndpointType)
	maps.DeleteFunc(missing, func(name string, r *xds.Resource) bool { return origin(served[name]) == r.Version })
	e.served.Apply(missing.list())
}

// putAgain sends what Envoy has already, under another version. Envoy does not
// ask for endpoints that it has; a cluster that is new to them would wait for
// them in vain.
func (e *endpoints) putAgain(names []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	served := e.served.Resources()
	var again []*xds.Resource
	for _, name := range names {
		r := served[name]
		version := origin(r.Version)
		if version == r.Version {
			version += localMark + "again"
		}
		again = append(again, xds.FromDelta(&discoveryv3.Resource{
			Name: name, Version: version, Resource: r.Delta().GetResource(),
		}))
	}
	e.served.Apply(again)
}

// prune takes away what is no longer held.
func (e *endpoints) prune() {
	e.mu.Lock()
	defer e.mu.Unlock()
	gone := e.served.Versions()
	for name := range e.held.set(resource.EndpointType) {
		delete(gone, name)
	}
	e.served.Apply(nil, slices.Collect(maps.Keys(gone))...)
}

// endpointNames returns the names of the endpoints that clusters refer to.
func endpointNames(clusters set) []string {
	var resources []envoy.Resource
	for _, m := range decodeAll[proto.Message](clusters) {
		resources = append(resources, envoy.Resource{Message: m})
	}
	return envoy.EndpointNames(resources)
}

// names returns whose endpoints Envoy was given.
func (e *endpoints) names() []string {
	return slices.Collect(maps.Keys(e.served.Versions()))
}
