package breaker

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/chancery-mesh/chancery/mesh"
)

// Thresholds returns the limits of a cluster. Those that cb leaves open, all of
// them if cb is nil, are Envoy's own: 1024 connections, pending requests and
// requests, 3 retries. What remains of each shows in Envoy's statistics.
func Thresholds(cb *mesh.CircuitBreaker) *clusterv3.CircuitBreakers {
	if cb == nil {
		cb = &mesh.CircuitBreaker{}
	}
	return &clusterv3.CircuitBreakers{
		Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			Priority:           corev3.RoutingPriority_DEFAULT,
			MaxConnections:     limit(cb.MaxConnections),
			MaxPendingRequests: limit(cb.MaxPending),
			MaxRequests:        limit(cb.MaxRequests),
			MaxRetries:         limit(cb.MaxRetries),
			TrackRemaining:     true,
		}},
	}
}

func limit(n *uint32) *wrapperspb.UInt32Value {
	if n == nil {
		return nil
	}
	return wrapperspb.UInt32(*n)
}
