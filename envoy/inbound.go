package envoy

import (
	"net/http"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/chancery-mesh/chancery/breaker"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/mesh"
)

// inbound takes calls from workloads, whom the peer's certificate names, and
// from where s takes them in the clear.
func inbound(m *mesh.Mesh, s *mesh.Service) *listenerv3.Listener {
	mutual := filterChain("mutual-tls", downstreamTLS(m.TrustDomain), inboundManager(m, neverBelieved))
	if s.Plaintext == nil {
		return listener(ListenerInbound, DefaultInbound, mutual)
	}
	plaintext := filterChain("plaintext", nil, plaintextManager(m, s))
	plaintext.FilterChainMatch = inTheClear(s.Plaintext.From)
	if s.MTLS == mesh.MTLSOff {
		return listener(ListenerInbound, DefaultInbound, plaintext)
	}
	mutual.FilterChainMatch = overTLS()
	l := listener(ListenerInbound, DefaultInbound, mutual, plaintext)
	l.ListenerFilters = []*listenerv3.ListenerFilter{tlsInspector()}
	return l
}

func inboundManager(m *mesh.Mesh, never []*matcherv3.StringMatcher) *hcmv3.HttpConnectionManager {
	manager := connectionManager(ListenerInbound, m.Decisions.Redact, never, trailerFilter(), authzFilter(), callersFilter(), routeLimitFilter())
	manager.ForwardClientCertDetails = hcmv3.HttpConnectionManager_SANITIZE_SET
	manager.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{Uri: true}
	manager.LocalReplyConfig = unreachedReplies()
	manager.CommonHttpProtocolOptions.MaxConnectionDuration = connectionLifetime(m)
	return manager
}

// plaintextManager takes calls in the clear: with mtls: off from workloads,
// else from who is none.
func plaintextManager(m *mesh.Mesh, s *mesh.Service) *hcmv3.HttpConnectionManager {
	if s.MTLS == mesh.MTLSOff {
		return inboundManager(m, neverBelieved)
	}
	manager := inboundManager(m, neverFromStrangers)
	manager.UseRemoteAddress = wrapperspb.Bool(true)
	return manager
}

func inboundRoutes(m *mesh.Mesh, s *mesh.Service) *routev3.RouteConfiguration {
	policy := identity.ID{Role: identity.RoleService, Name: s.Name}
	routes := []*routev3.Route{direct(routeTwoNames, twoNames(), http.StatusForbidden)}
	var limits []breaker.NamedLimit
	for i := range s.Routes {
		r := &s.Routes[i]
		route := forward(r.Name, routeMatch(r.Match), ClusterApplication, r)
		setFilter(route, filterAuthz, checked(policy, r.ID(), r.MaxBody))
		setFilter(route, filterCallers, calledBy(m, r))
		if r.RateLimit != nil {
			limit := breaker.NamedLimit{Route: r.Name, Limit: *r.RateLimit}
			limits = append(limits, limit)
			route.GetRoute().RateLimits = breaker.RouteActions(limit)
		}
		routes = append(routes, route)
	}
	host := virtualHost(ListenerInbound, anyHost, routes)
	answerAnybody(host.GetRoutes())
	limitRoutes(host, limits)
	return &routev3.RouteConfiguration{
		Name:         ListenerInbound,
		VirtualHosts: []*routev3.VirtualHost{host},
		// Of the application's answers; Envoy's own keep it.
		ResponseHeadersToRemove: []string{breaker.HeaderUnreached},
	}
}

// twoNames selects requests whose peer's certificate names more than one
// workload (X509-SVID, section 2), so that nobody need choose. Envoy itself
// wrote the header.
func twoNames() *routev3.RouteMatch {
	m := everything()
	m.Headers = []*routev3.HeaderMatcher{headerMatcher("x-forwarded-client-cert", expression(`.*URI=.*URI=.*`))}
	return m
}
