package envoy

import (
	"net/http"
	"net/netip"
	"slices"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/chancery-mesh/chancery/mesh"
)

// Where a sidecar listens, and its application does, unless [Localize] says
// otherwise: on loopback only.
var (
	DefaultInbound     = netip.MustParseAddrPort("127.0.0.1:15006")
	DefaultOutbound    = netip.MustParseAddrPort("127.0.0.1:15001")
	DefaultApplication = netip.MustParseAddrPort("127.0.0.1:8080")
)

// Sidecar returns the clusters, listeners and routes of the sidecars of a
// service, sorted by type and name: the way in, from other workloads to the
// application, and the way out, from the application to the services that it
// uses, each under its name as host.
func Sidecar(m *mesh.Mesh, s *mesh.Service) []Resource {
	var rs resources
	rs.addCluster(applicationCluster(DefaultApplication), documentOf(s))
	rs.addListener(inbound(m, s), documentOf(s), documentOfMesh(m))
	rs.addRoutes(inboundRoutes(m, s), documentOf(s), documentOfMesh(m))

	up := newUpstreams(m)
	rs.addListener(outbound(m), documentOf(s), documentOfMesh(m))
	rs.addRoutes(outboundRoutes(up, s), up.documents(documentOf(s))...)
	up.addTo(&rs)
	return rs.sorted()
}

// outbound takes the application's own calls. The application forwards what it
// was given: Passport, correlation ID and where the request came from.
func outbound(m *mesh.Mesh) *listenerv3.Listener {
	manager := connectionManager(ListenerOutbound, m.Decisions.Redact, neverBelieved, answerFilter())
	return listener(ListenerOutbound, DefaultOutbound, filterChain("application", nil, manager))
}

func outboundRoutes(up *upstreams, s *mesh.Service) *routev3.RouteConfiguration {
	config := &routev3.RouteConfiguration{Name: ListenerOutbound}
	for _, name := range slices.Sorted(slices.Values(s.Uses)) {
		used := up.mesh.Service(name)
		up.services[name] = used
		config.VirtualHosts = append(config.VirtualHosts,
			virtualHost(name, []string{name, name + ":*"}, usedRoutes(up, s, used)))
	}
	config.VirtualHosts = append(config.VirtualHosts, &routev3.VirtualHost{
		Name:    routeMisdirected,
		Domains: anyHost,
		Routes:  []*routev3.Route{direct(routeMisdirected, everything(), http.StatusMisdirectedRequest)},
	})
	return config
}

// usedRoutes returns the routes of used for calls by s. The sidecar of used
// judges them; where it has none, this one at least keeps to `callers`.
func usedRoutes(up *upstreams, s, used *mesh.Service) []*routev3.Route {
	var routes []*routev3.Route
	for i := range used.Routes {
		r := &used.Routes[i]
		name, match := used.Name+"/"+r.Name, routeMatch(r.Match)
		if used.MTLS == mesh.MTLSOff && !slices.Contains(r.Callers, s.Name) {
			routes = append(routes, direct(name, match, http.StatusForbidden))
			continue
		}
		routes = append(routes, up.route(name, match, used, r))
	}
	return routes
}
