package controlplane

import (
	"log/slog"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// impatientStream drops a client that does not read. Until then, what waits for
// it is one response, and what gRPC buffers: go-control-plane sends the next
// one when this one is on its way.
type impatientStream struct {
	discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	connection *connection
	log        *slog.Logger
}

// Send sends a response. Only the end of its connection interrupts it.
func (s *impatientStream) Send(resp *discoveryv3.DeltaDiscoveryResponse) error {
	patience := time.AfterFunc(s.connection.door.bounds.slow, func() {
		s.log.Warn("connection cut: its agent does not read", "workload", s.connection.peer.ID.String(), "type_url", resp.GetTypeUrl())
		s.connection.cut()
	})
	defer patience.Stop()
	return s.AggregatedDiscoveryService_DeltaAggregatedResourcesServer.Send(resp)
}
