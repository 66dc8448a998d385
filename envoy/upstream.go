package envoy

import (
	"maps"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/chancery-mesh/chancery/breaker"
	"github.com/chancery-mesh/chancery/mesh"
)

// upstreams are the services that one view sends to, with the clusters that it
// needs for that.
type upstreams struct {
	mesh     *mesh.Mesh
	services map[string]*mesh.Service
	clusters map[string]upstream
}

type upstream struct {
	cluster *clusterv3.Cluster
	service *mesh.Service
}

func newUpstreams(m *mesh.Mesh) *upstreams {
	return &upstreams{mesh: m, services: map[string]*mesh.Service{}, clusters: map[string]upstream{}}
}

// route sends what match selects to route r of s.
func (u *upstreams) route(name string, match *routev3.RouteMatch, s *mesh.Service, r *mesh.Route) *routev3.Route {
	cluster := clusterName(s, r)
	if _, ok := u.clusters[cluster]; !ok {
		u.clusters[cluster] = upstream{upstreamCluster(u.mesh, s, r), s}
	}
	route := forward(name, match, cluster, r)
	route.GetRoute().RetryPolicy = breaker.RetryPolicy(r.Retries)
	if s.MTLS == mesh.MTLSOff && !s.TakesClearPassport() {
		// Whoever listens in on the way could use it.
		route.RequestHeadersToRemove = []string{HeaderPassport}
	}
	return route
}

// documents returns those of the services, and others.
func (u *upstreams) documents(others ...mesh.DocumentID) []mesh.DocumentID {
	for _, name := range slices.Sorted(maps.Keys(u.services)) {
		others = append(others, documentOf(u.services[name]))
	}
	return others
}

// addTo adds the clusters to rs.
func (u *upstreams) addTo(rs *resources) {
	for _, up := range u.clusters {
		rs.addCluster(up.cluster, documentOf(up.service), documentOfMesh(u.mesh))
	}
}

// forward sends what match selects to cluster, in the time that r has.
func forward(name string, match *routev3.RouteMatch, cluster string, r *mesh.Route) *routev3.Route {
	return &routev3.Route{
		Name:  name,
		Match: match,
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster},
			Timeout:          durationpb.New(r.Timeout),
		}},
	}
}
