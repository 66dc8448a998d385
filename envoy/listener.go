package envoy

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// listenerBuffer bounds what is buffered for one connection.
const listenerBuffer = 32 << 10

// listener returns a listener of manager's name whose connections all go to
// manager, over tls unless that is nil.
func listener(address netip.AddrPort, tls *corev3.TransportSocket, manager *hcmv3.HttpConnectionManager) *listenerv3.Listener {
	direction := corev3.TrafficDirection_INBOUND
	if manager.GetStatPrefix() == ListenerOutbound {
		direction = corev3.TrafficDirection_OUTBOUND
	}
	return &listenerv3.Listener{
		Name:                          manager.GetStatPrefix(),
		Address:                       socketAddress(address),
		TrafficDirection:              direction,
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(listenerBuffer),
		FilterChains: []*listenerv3.FilterChain{{
			TransportSocket: tls,
			Filters: []*listenerv3.Filter{{
				Name:       "envoy.filters.network.http_connection_manager",
				ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: typed(manager)},
			}},
		}},
	}
}
