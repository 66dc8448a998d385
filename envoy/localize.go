package envoy

import (
	"net/netip"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// Local is where one instance differs from the others of its service or
// gateway. A zero address leaves the view's own.
type Local struct {
	// Inbound is where a sidecar takes calls from other workloads, or a gateway
	// from clients.
	Inbound netip.AddrPort
	// Outbound is where a sidecar takes calls from its application.
	Outbound netip.AddrPort
	// Application is where the application listens.
	Application netip.AddrPort
	// Generations names, by service, the present generation of connections to
	// its instances. A new name has Envoy end those that it has, when the
	// requests on them are done, and make new ones.
	Generations map[string]string
}

// Localize returns resource as the instance has it. It never changes resource:
// what differs is a copy, and what does not is resource itself.
func Localize(resource proto.Message, local Local) proto.Message {
	switch r := resource.(type) {
	case *listenerv3.Listener:
		return localizeListener(r, local)
	case *clusterv3.Cluster:
		if r.GetName() == ClusterApplication && local.Application.IsValid() {
			return applicationCluster(local.Application)
		}
		return localizeUpstream(r, local.Generations[serviceOf(r.GetName())])
	}
	return resource
}

// localizeUpstream writes the generation into the cluster: Envoy replaces a
// cluster of which anything changed, and with it the connections.
func localizeUpstream(c *clusterv3.Cluster, generation string) *clusterv3.Cluster {
	if generation == "" {
		return c
	}
	c = proto.CloneOf(c)
	c.Metadata = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
		"chancery": {Fields: map[string]*structpb.Value{"generation": structpb.NewStringValue(generation)}},
	}}
	return c
}

func localizeListener(l *listenerv3.Listener, local Local) *listenerv3.Listener {
	address := local.Inbound
	if l.GetName() == ListenerOutbound {
		address = local.Outbound
	}
	if !address.IsValid() {
		return l
	}
	l = proto.CloneOf(l)
	l.Address = socketAddress(address)
	return l
}
