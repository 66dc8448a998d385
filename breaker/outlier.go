package breaker

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/chancery-mesh/chancery/mesh"
)

// sweep is how often Envoy lets ejected instances back in, which rounds
// ejection times up. Its own 10s would double a short ejection.
const sweep = time.Second

// OutlierDetection returns when a cluster ejects an instance: after as many
// failures in a row as cb says, nothing else. Connections that fail and
// answers that do not come in time count like 5xx. It returns nil if cb never
// ejects.
//
// All instances may be ejected at once. Envoy's own bound of 10 % would keep
// the failing one of three; the cluster must not panic either (see package
// envoy), or Envoy sends to ejected instances after all.
func OutlierDetection(cb *mesh.CircuitBreaker) *clusterv3.OutlierDetection {
	if cb == nil || cb.Consecutive5xx == nil {
		return nil
	}
	return &clusterv3.OutlierDetection{
		Consecutive_5Xx:          wrapperspb.UInt32(*cb.Consecutive5xx),
		EnforcingConsecutive_5Xx: wrapperspb.UInt32(100),
		Interval:                 durationpb.New(min(sweep, cb.EjectFor)),
		BaseEjectionTime:         durationpb.New(cb.EjectFor),
		MaxEjectionTime:          durationpb.New(max(cb.EjectFor, cb.MaxEjectFor)),
		// Instances that were ejected together do not come back together.
		MaxEjectionTimeJitter: durationpb.New(cb.EjectFor / 10),
		MaxEjectionPercent:    wrapperspb.UInt32(100),
		// Statistics over all instances eject some by default, too.
		EnforcingSuccessRate:               wrapperspb.UInt32(0),
		EnforcingConsecutiveGatewayFailure: wrapperspb.UInt32(0),
	}
}
