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
	// its instances; [AnyService] is for those that are not there. A new name
	// has Envoy end the connections that it has, when the requests on them are
	// done, and make new ones.
	Generations map[string]string
}

// AnyService stands for services that [Local.Generations] does not name.
const AnyService = "*"

func (l Local) generation(service string) string {
	if generation, ok := l.Generations[service]; ok {
		return generation
	}
	return l.Generations[AnyService]
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
		return localizeUpstream(r, local.generation(serviceOf(r.GetName())))
	}
	return resource
}

// localizeUpstream writes the generation into the cluster: Envoy replaces a
// cluster of which anything changed, and with it the connections.
func localizeUpstream(c *clusterv3.Cluster, generation string) *clusterv3.Cluster {
	if generation == "" || c.GetName() == ClusterApplication {
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
