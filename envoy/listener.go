package envoy

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	inspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// listenerBuffer bounds what is buffered for one connection.
const listenerBuffer = 32 << 10

// listener returns a listener. A connection that no chain is for is closed.
func listener(name string, address netip.AddrPort, chains ...*listenerv3.FilterChain) *listenerv3.Listener {
	direction := corev3.TrafficDirection_INBOUND
	if name == ListenerOutbound {
		direction = corev3.TrafficDirection_OUTBOUND
	}
	return &listenerv3.Listener{
		Name:                          name,
		Address:                       socketAddress(address),
		TrafficDirection:              direction,
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(listenerBuffer),
		FilterChains:                  chains,
	}
}

// filterChain hands connections, of any kind, to manager: over tls unless that
// is nil.
func filterChain(name string, tls *corev3.TransportSocket, manager *hcmv3.HttpConnectionManager) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{
		Name:            name,
		TransportSocket: tls,
		Filters: []*listenerv3.Filter{{
			Name:       "envoy.filters.network.http_connection_manager",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: typed(manager)},
		}},
	}
}

// tlsInspector tells connections over TLS from those in the clear.
func tlsInspector() *listenerv3.ListenerFilter {
	return &listenerv3.ListenerFilter{
		Name:       "envoy.filters.listener.tls_inspector",
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: typed(&inspectorv3.TlsInspector{})},
	}
}

// overTLS and inTheClear are the two kinds of connections; only where both may
// come must they be told apart.
func overTLS() *listenerv3.FilterChainMatch {
	return &listenerv3.FilterChainMatch{TransportProtocol: "tls"}
}

func inTheClear(from []netip.Prefix) *listenerv3.FilterChainMatch {
	match := &listenerv3.FilterChainMatch{TransportProtocol: "raw_buffer"}
	for _, network := range from {
		match.SourcePrefixRanges = append(match.SourcePrefixRanges, &corev3.CidrRange{
			AddressPrefix: network.Addr().String(),
			PrefixLen:     wrapperspb.UInt32(uint32(network.Bits())),
		})
	}
	return match
}
