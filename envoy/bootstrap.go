package envoy

import (
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/chancery-mesh/chancery/breaker"
	"github.com/chancery-mesh/chancery/mesh"
)

// BootstrapConfig says which Envoy is to be started. All fields are required.
type BootstrapConfig struct {
	// NodeID and Cluster are how Envoy calls itself, for people to read; the
	// agent knows its Envoy by the socket.
	NodeID  string
	Cluster string
	// Socket is the path of the agent's envoy.sock.
	Socket string
	// AdminSocket is the path of the Unix socket that Envoy's admin interface
	// shall listen on, for the same user alone.
	AdminSocket string
}

// agentRequests is how many calls to the agent may be under way in one cluster.
// For ext_authz that is the requests of one Envoy that wait for their check:
// more of them are answered 503.
var agentRequests = map[string]uint32{
	ClusterXDS:   16,
	ClusterSDS:   64,
	ClusterAuthz: 4096,
}

// maxConnections is how many clients one Envoy holds at a time.
const maxConnections = 50_000

// Bootstrap returns what Envoy starts with: the way to its agent, from whom it
// gets all the rest.
func Bootstrap(c BootstrapConfig) *bootstrapv3.Bootstrap {
	return &bootstrapv3.Bootstrap{
		Node:  &corev3.Node{Id: c.NodeID, Cluster: c.Cluster},
		Admin: &bootstrapv3.Admin{Address: pipe(c.AdminSocket, 0o600)},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{
			Clusters: []*clusterv3.Cluster{
				agentCluster(ClusterXDS, c.Socket),
				agentCluster(ClusterSDS, c.Socket),
				agentCluster(ClusterAuthz, c.Socket),
			},
		},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			AdsConfig: apiConfigSource(ClusterXDS),
			CdsConfig: adsSource(0),
			LdsConfig: adsSource(0),
		},
		OverloadManager: overload(),
		LayeredRuntime: &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
			Name: "chancery",
			LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{
				Fields: map[string]*structpb.Value{
					// Envoy refuses expressions larger than 100 by default,
					// which that of canonical paths is.
					"re2.max_program_size.error_level": structpb.NewNumberValue(10_000),
				},
			}},
		}}},
	}
}

// overload bounds the connections that clients open, which Envoy does not by
// itself.
func overload() *overloadv3.OverloadManager {
	return &overloadv3.OverloadManager{
		ResourceMonitors: []*overloadv3.ResourceMonitor{{
			Name: "envoy.resource_monitors.global_downstream_max_connections",
			ConfigType: &overloadv3.ResourceMonitor_TypedConfig{
				TypedConfig: typed(&connectionsv3.DownstreamConnectionsConfig{
					MaxActiveDownstreamConnections: maxConnections,
				}),
			},
		}},
	}
}

// agentCluster is one way to the agent.
func agentCluster(name, socket string) *clusterv3.Cluster {
	limit := agentRequests[name]
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(connectTimeout),
		LoadAssignment:       staticEndpoint(name, pipe(socket, 0)),
		CircuitBreakers: breaker.Thresholds(&mesh.CircuitBreaker{
			MaxRequests: &limit,
			MaxPending:  &limit,
		}),
		TypedExtensionProtocolOptions: protocolOptions(&httpv3.HttpProtocolOptions{
			UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
				ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
					ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
						Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
							ConnectionKeepalive: &corev3.KeepaliveSettings{
								Interval: durationpb.New(10 * time.Second),
								Timeout:  durationpb.New(5 * time.Second),
							},
						},
					},
				},
			},
		}),
	}
}
