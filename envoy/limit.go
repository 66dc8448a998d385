package envoy

import (
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	localratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/chancery-mesh/chancery/breaker"
	"github.com/chancery-mesh/chancery/mesh"
)

// The two limits are filters of one kind, told apart by name.
const (
	filterPeerLimit  = "chancery.peer_limit"
	filterRouteLimit = "chancery.route_limit"
)

// peerLimitFilter stands before ext_authz: a flood of bad tokens costs no
// checks.
func peerLimitFilter(l mesh.RateLimit) *hcmv3.HttpFilter {
	return httpFilter(filterPeerLimit, breaker.PeerLimit(l))
}

// routeLimitFilter stands after ext_authz, whose metadata its keys come from.
// It does nothing by itself; see limitRoutes.
func routeLimitFilter() *hcmv3.HttpFilter {
	return httpFilter(filterRouteLimit, &localratelimitv3.LocalRateLimit{StatPrefix: "route_limit"})
}

// limitRoutes gives host its limits and turns them off for the routes that
// count by none.
func limitRoutes(host *routev3.VirtualHost, limits []breaker.NamedLimit) {
	if len(limits) == 0 {
		return
	}
	host.TypedPerFilterConfig = map[string]*anypb.Any{
		filterRouteLimit: typed(breaker.RouteLimits(limits)),
	}
	for _, r := range host.GetRoutes() {
		if len(r.GetRoute().GetRateLimits()) == 0 {
			setFilter(r, filterRouteLimit, typed(&routev3.FilterConfig{Disabled: true}))
		}
	}
}

func setFilter(r *routev3.Route, filter string, config *anypb.Any) {
	if r.TypedPerFilterConfig == nil {
		r.TypedPerFilterConfig = map[string]*anypb.Any{}
	}
	r.TypedPerFilterConfig[filter] = config
}
