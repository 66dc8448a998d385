package envoy

import (
	"net/netip"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/chancery-mesh/chancery/breaker"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/mesh"
)

const (
	connectTimeout = time.Second
	// endpointsWait is short because Envoy does not ask again for endpoints
	// that it has: a second cluster of a service waits it out, unless its agent
	// sends them once more.
	endpointsWait = 100 * time.Millisecond
	// plainIdleTimeout is below the keep-alive times of common HTTP/1.1
	// servers (5s and more), or requests would meet a connection that the
	// server is just closing.
	plainIdleTimeout = 4 * time.Second
	// clusterBuffer bounds what is buffered for one connection.
	clusterBuffer = 1 << 20
)

// clusterName returns the cluster that requests of route r of s go to. Envoy
// keeps breakers for each cluster, so a route that declares any has its own: it
// cannot use up another's.
func clusterName(s *mesh.Service, r *mesh.Route) string {
	if r.CircuitBreaker == nil {
		return s.Name
	}
	return s.Name + routeMark + r.Name
}

// routeMark is in no service's name.
const routeMark = "~"

// serviceOf returns the service that a cluster's requests go to.
func serviceOf(cluster string) string {
	service, _, _ := strings.Cut(cluster, routeMark)
	return service
}

// upstreamCluster returns that cluster.
func upstreamCluster(m *mesh.Mesh, s *mesh.Service, r *mesh.Route) *clusterv3.Cluster {
	c := &clusterv3.Cluster{
		Name:                 clusterName(s, r),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{
			EdsConfig:   adsSource(endpointsWait),
			ServiceName: EndpointsName(s.Name),
		},
		ConnectTimeout:                durationpb.New(connectTimeout),
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(clusterBuffer),
		LbPolicy:                      clusterv3.Cluster_LEAST_REQUEST,
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{
			// Never send to instances that are ejected or failing.
			HealthyPanicThreshold: &typev3.Percent{Value: 0},
		},
		CircuitBreakers:  breaker.Thresholds(r.CircuitBreaker),
		OutlierDetection: breaker.OutlierDetection(r.CircuitBreaker),
		// An instance that left the registry is gone, even while ejected.
		IgnoreHealthOnHostRemoval: true,
	}
	if !s.HasSidecar() {
		c.TypedExtensionProtocolOptions = protocolOptions(plainHTTP())
		return c
	}
	if s.MTLS != mesh.MTLSOff {
		upstream := identity.ID{Role: identity.RoleService, Name: s.Name}
		c.TransportSocket = upstreamTLS(upstream.SPIFFE(m.TrustDomain))
	}
	c.TypedExtensionProtocolOptions = protocolOptions(meshHTTP(m))
	return c
}

// applicationCluster is the application beside a sidecar.
func applicationCluster(address netip.AddrPort) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                          ClusterApplication,
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:                durationpb.New(connectTimeout),
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(clusterBuffer),
		LoadAssignment:                staticEndpoint(ClusterApplication, socketAddress(address)),
		CircuitBreakers:               breaker.Thresholds(nil),
		TypedExtensionProtocolOptions: protocolOptions(plainHTTP()),
	}
}

// meshHTTP is what Envoys speak with each other.
func meshHTTP(m *mesh.Mesh) *httpv3.HttpProtocolOptions {
	return &httpv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{MaxConnectionDuration: connectionLifetime(m)},
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
					Http2ProtocolOptions: &corev3.Http2ProtocolOptions{ConnectionKeepalive: keepalive()},
				},
			},
		},
	}
}

// plainHTTP is what applications speak.
func plainHTTP() *httpv3.HttpProtocolOptions {
	return &httpv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{IdleTimeout: durationpb.New(plainIdleTimeout)},
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
					HttpProtocolOptions: &corev3.Http1ProtocolOptions{},
				},
			},
		},
	}
}

// keepalive finds connections whose other end is gone without a word.
func keepalive() *corev3.KeepaliveSettings {
	return &corev3.KeepaliveSettings{
		Interval: durationpb.New(30 * time.Second),
		Timeout:  durationpb.New(5 * time.Second),
	}
}

func protocolOptions(options *httpv3.HttpProtocolOptions) map[string]*anypb.Any {
	return map[string]*anypb.Any{
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(options),
	}
}
