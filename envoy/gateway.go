package envoy

import (
	"net/http"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/chancery-mesh/chancery/breaker"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/mesh"
)

// Gateway returns the clusters, the listener and the routes of a gateway,
// sorted by type and name.
//
// Every route of the gateway becomes one Envoy route for each route of each
// service that it leads to, since timeout, retries and breaker are the
// service's. What a gateway's route leads to a service is never tried on the
// next: if no route of the service matches it, or one that does not name the
// gateway in `callers`, it is not found.
func Gateway(m *mesh.Mesh, g *mesh.Gateway) []Resource {
	v := &gatewayView{
		gateway:   g,
		policy:    identity.ID{Role: identity.RoleGateway, Name: g.Name},
		upstreams: newUpstreams(m),
	}
	for i := range g.Routes {
		v.addRoute(&g.Routes[i])
	}
	host := virtualHost(ListenerGateway, anyHost, v.routes)
	limitRoutes(host, v.limits)

	document := mesh.DocumentID{Kind: mesh.KindGateway, Name: g.Name}
	var rs resources
	rs.addListener(listener(ListenerGateway, g.Listen, filterChain("clients", clientTLS(g.TLS), edge(g))), document, documentOfMesh(m))
	rs.addRoutes(&routev3.RouteConfiguration{
		Name:         ListenerGateway,
		VirtualHosts: []*routev3.VirtualHost{host},
		// Envoy's own word for the address in x-forwarded-for.
		RequestHeadersToRemove: []string{"x-envoy-external-address"},
	}, v.upstreams.documents(document)...)
	v.upstreams.addTo(&rs)
	return rs.sorted()
}

// edge trusts nothing that clients say about themselves.
func edge(g *mesh.Gateway) *hcmv3.HttpConnectionManager {
	manager := connectionManager(ListenerGateway, g.Decisions.Redact, neverFromOutside,
		answerFilter(),
		peerLimitFilter(g.PeerLimit),
		authzFilter(),
		routeLimitFilter(),
	)
	manager.UseRemoteAddress = wrapperspb.Bool(true)
	manager.Http2ProtocolOptions = http2(100)
	manager.LocalReplyConfig = discreetReplies()
	return manager
}

// gatewayView collects the Envoy routes of a gateway, in order.
type gatewayView struct {
	gateway   *mesh.Gateway
	policy    identity.ID
	upstreams *upstreams
	routes    []*routev3.Route
	limits    []breaker.NamedLimit
}

func (v *gatewayView) addRoute(g *mesh.GatewayRoute) {
	if g.RateLimit != nil {
		v.limits = append(v.limits, breaker.NamedLimit{Route: g.Name, Limit: *g.RateLimit})
	}
	for _, s := range v.destinations(g) {
		v.upstreams.services[s.Name] = s
		one := instantiate(g, s)
		for i := range s.Routes {
			v.addServiceRoute(g.ID(), one, s, &s.Routes[i])
		}
		name := strings.Join([]string{g.Name, s.Name, routeNotFound}, "/")
		v.routes = append(v.routes, direct(name, routeMatch(one.Match), http.StatusNotFound))
	}
}

// destinations returns the services that g leads to.
func (v *gatewayView) destinations(g *mesh.GatewayRoute) []*mesh.Service {
	m := v.upstreams.mesh
	if _, ok := g.ToVariable(); !ok {
		return []*mesh.Service{m.Service(g.To)}
	}
	return m.Destinations(v.gateway)
}

func (v *gatewayView) mayCall(r mesh.Route) bool { return slices.Contains(r.Callers, v.gateway.Name) }

// addServiceRoute adds what both g, which the policy knows as id, and route r of
// s match.
func (v *gatewayView) addServiceRoute(id string, g mesh.GatewayRoute, s *mesh.Service, r *mesh.Route) {
	method, ok := commonMethod(g.Match.Method, r.Match.Method)
	if !ok {
		return
	}
	for _, path := range commonPaths(g, r) {
		match := routeMatch(mesh.Match{Method: method, Path: path})
		name := strings.Join([]string{g.Name, s.Name, r.Name}, "/")
		if !v.mayCall(*r) {
			v.routes = append(v.routes, direct(name, match, http.StatusNotFound))
			continue
		}
		route := v.upstreams.route(name, match, s, r)
		setFilter(route, filterAuthz, checked(v.policy, id, g.MaxBody))
		if !g.Rewrite.IsZero() {
			rewritten(route, g.Match.Path, g.Rewrite)
		}
		if g.RateLimit != nil {
			route.GetRoute().RateLimits = breaker.RouteActions(breaker.NamedLimit{Route: g.Name, Limit: *g.RateLimit})
		}
		v.routes = append(v.routes, route)
	}
}

// instantiate returns g as it stands for s alone.
func instantiate(g *mesh.GatewayRoute, s *mesh.Service) mesh.GatewayRoute {
	one := *g
	if variable, ok := g.ToVariable(); ok {
		value := map[string]string{variable: s.Name}
		one.Match.Path = g.Match.Path.Substitute(value)
		one.Rewrite = g.Rewrite.Substitute(value)
	}
	return one
}

// commonMethod returns the method that both match; empty is any.
func commonMethod(a, b string) (string, bool) {
	switch {
	case mesh.MethodMatches(a, b):
		return b, true
	case mesh.MethodMatches(b, a):
		return a, true
	}
	return "", false
}

// commonPaths returns the paths at the gateway that g matches and, rewritten,
// r as well.
func commonPaths(g mesh.GatewayRoute, r *mesh.Route) []mesh.Pattern {
	if !g.Rewrite.IsZero() {
		return g.Match.Path.Unrewrite(g.Rewrite, r.Match.Path)
	}
	if both, ok := mesh.Intersect(g.Match.Path, r.Match.Path); ok {
		return []mesh.Pattern{both}
	}
	return nil
}
