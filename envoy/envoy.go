// Package envoy translates the mesh into Envoy's protobuf: what a gateway
// ([Gateway]) and a sidecar ([Sidecar]) listen on, route and connect to, where
// instances are ([Endpoints]), and the bootstrap that makes an Envoy ask its
// agent for all that ([Bootstrap]).
//
//	for _, resource := range envoy.Gateway(m, m.Gateway("public")) {
//		collection.Set(resource.TypeURL, resource.Name, resource.Message)
//	}
//
// It is pure: equal documents give equal bytes, and there are no clocks, no
// network and no goroutines here. It refuses to know which Envoy instance it
// writes for; what differs between the instances of one service is put in by
// their agent, with [Localize].
//
// Three things hold for whatever it writes. A request that no document speaks
// of meets a direct response and never an upstream. A request to an upstream
// was checked by ext_authz, at the gateway and beside the service. And what
// only the mesh may say is removed from requests before any filter reads them.
package envoy

import (
	"cmp"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/breaker"
	"github.com/chancery-mesh/chancery/mesh"
)

// Resource is one xDS resource.
type Resource struct {
	TypeURL string
	Name    string
	Message proto.Message
	// Documents are those that the resource was made of, sorted: the ones to
	// look at when Envoy rejects it.
	Documents []mesh.DocumentID
}

// Names of the listeners. Each has a route configuration of the same name.
const (
	ListenerGateway  = "gateway"
	ListenerInbound  = "inbound"
	ListenerOutbound = "outbound"
)

// Names of the clusters that are not upstreams. No service's name has an
// underscore.
const (
	// ClusterApplication is the application beside a sidecar.
	ClusterApplication = "chancery_application"
	// The agent's, one each so that none starves another.
	ClusterXDS   = "chancery_xds"
	ClusterSDS   = "chancery_sds"
	ClusterAuthz = "chancery_authz"
)

// Context extensions of ext_authz checks.
const (
	// ContextPolicy names the policy: "service/orders", "gateway/public".
	ContextPolicy = "policy"
	// ContextRoute is the id of the document's route, as [mesh.Route.ID] and
	// [mesh.GatewayRoute.ID] have it.
	ContextRoute = "route"
)

// MetadataNamespace is where the dynamic metadata of ext_authz's answers is.
const MetadataNamespace = breaker.MetadataNamespace

// HeaderPassport carries the Passport.
const HeaderPassport = "txn-token"

// resources collects one view.
type resources []Resource

func (rs *resources) addCluster(c *clusterv3.Cluster, documents ...mesh.DocumentID) {
	rs.add(resourcev3.ClusterType, c.GetName(), c, documents)
}

func (rs *resources) addListener(l *listenerv3.Listener, documents ...mesh.DocumentID) {
	rs.add(resourcev3.ListenerType, l.GetName(), l, documents)
}

func (rs *resources) addRoutes(r *routev3.RouteConfiguration, documents ...mesh.DocumentID) {
	rs.add(resourcev3.RouteType, r.GetName(), r, documents)
}

func (rs *resources) add(typeURL, name string, m proto.Message, documents []mesh.DocumentID) {
	slices.SortFunc(documents, func(a, b mesh.DocumentID) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	*rs = append(*rs, Resource{TypeURL: typeURL, Name: name, Message: m, Documents: slices.Compact(documents)})
}

// sorted returns the resources by type and name.
func (rs resources) sorted() []Resource {
	slices.SortFunc(rs, func(a, b Resource) int {
		return cmp.Or(cmp.Compare(a.TypeURL, b.TypeURL), cmp.Compare(a.Name, b.Name))
	})
	return rs
}

func documentOf(s *mesh.Service) mesh.DocumentID {
	return mesh.DocumentID{Kind: mesh.KindService, Name: s.Name}
}

func documentOfMesh(m *mesh.Mesh) mesh.DocumentID {
	return mesh.DocumentID{Kind: mesh.KindMesh, Name: m.Name}
}
