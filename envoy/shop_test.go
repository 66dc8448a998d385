package envoy_test

import (
	"net/netip"
	"time"

	"github.com/chancery-mesh/chancery/mesh"
)

// shop is a mesh of one gateway in front of one service, orders, which has no
// sidecar. Tests change it before they use it.
func shop(routes ...mesh.Route) *mesh.Mesh {
	for i := range routes {
		routes[i].Callers = []string{"public"}
		if routes[i].Timeout == 0 {
			routes[i].Timeout = 5 * time.Second
		}
	}
	return &mesh.Mesh{
		Name:         "shop",
		TrustDomain:  trustDomain,
		Certificates: mesh.CertificateLifetimes{Leaf: 24 * time.Hour},
		Gateways: []*mesh.Gateway{{
			Name:      "public",
			Listen:    netip.MustParseAddrPort("127.0.0.1:8443"),
			PeerLimit: mesh.RateLimit{Requests: 10_000, Per: time.Second, Burst: 10_000},
			Routes: []mesh.GatewayRoute{{
				Name:  "orders",
				Match: mesh.Match{Path: mesh.MustPattern("/**")},
				To:    "orders",
			}},
		}},
		Services: []*mesh.Service{{
			Name:     "orders",
			MTLS:     mesh.MTLSOff,
			Gateways: []string{"public"},
			Routes:   routes,
		}},
	}
}

// route is a route of any method.
func route(name, path string) mesh.Route {
	return mesh.Route{Name: name, Match: mesh.Match{Path: mesh.MustPattern(path)}, Allow: "true"}
}

func patternOf(s string) mesh.Pattern { return mesh.MustPattern(s) }
