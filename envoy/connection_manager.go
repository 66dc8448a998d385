package envoy

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/chancery-mesh/chancery/mesh"
)

const (
	// routesWait is how long a listener waits for its routes.
	routesWait = 5 * time.Second
	// maxConnectionLifetime bounds what a certificate that was accepted once, or
	// a balance that was struck once, is good for.
	maxConnectionLifetime = time.Hour
)

// connectionManager returns what all listeners have in common: strict HTTP,
// bounded in time and size, the path untouched, and the headers removed that
// the other side may not set.
func connectionManager(name string, redact mesh.Redaction, never []*matcherv3.StringMatcher, filters ...*hcmv3.HttpFilter) *hcmv3.HttpConnectionManager {
	return &hcmv3.HttpConnectionManager{
		StatPrefix: name,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			ConfigSource:    adsSource(routesWait),
			RouteConfigName: name,
		}},
		HttpFilters: append(filters, routerFilter()),
		AccessLog:   accessLog(name, redact),

		EarlyHeaderMutationExtensions: early(never),
		InternalAddressConfig:         nobodyInternal(),
		GenerateRequestId:             wrapperspb.Bool(true),
		AlwaysSetRequestIdInResponse:  true,
		ServerName:                    "chancery",

		// What policy sees is what the service receives: nothing is repaired.
		// What is ambiguous meets a route of its own, in every virtual host.
		NormalizePath:                wrapperspb.Bool(false),
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_REJECT_REQUEST,

		StreamIdleTimeout:              durationpb.New(5 * time.Minute),
		RequestTimeout:                 durationpb.New(5 * time.Minute),
		RequestHeadersTimeout:          durationpb.New(10 * time.Second),
		Http1SafeMaxConnectionDuration: true,
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			IdleTimeout:                  durationpb.New(10 * time.Minute),
			MaxConnectionDuration:        durationpb.New(maxConnectionLifetime),
			HeadersWithUnderscoresAction: corev3.HttpProtocolOptions_REJECT_REQUEST,
		},
		HttpProtocolOptions: &corev3.Http1ProtocolOptions{
			// The Host header alone says which host is meant.
			AllowAbsoluteUrl: wrapperspb.Bool(false),
		},
		Http2ProtocolOptions: http2(1000),
	}
}

// connectionLifetime is how long a connection between workloads lives: a
// certificate that was accepted once has most of its life still before it when
// its successor is asked for.
func connectionLifetime(m *mesh.Mesh) *durationpb.Duration {
	return durationpb.New(connectionAge(m))
}

func connectionAge(m *mesh.Mesh) time.Duration {
	return min(maxConnectionLifetime, max(time.Second, m.Certificates.Leaf/4))
}

// drainTime is how long Envoy still takes requests on a connection that has
// reached its age (HttpConnectionManager.drain_timeout, the default).
const drainTime = 5 * time.Second

// LastRequest is how long after its handshake a connection between workloads may
// still carry a request.
func LastRequest(m *mesh.Mesh) time.Duration { return connectionAge(m) + drainTime }

// nobodyInternal keeps Envoy from believing clients on loopback and private
// networks what only Envoys say to each other. Its default is to believe them,
// also where the list is empty: so it holds the one address nobody has.
func nobodyInternal() *hcmv3.HttpConnectionManager_InternalAddressConfig {
	return &hcmv3.HttpConnectionManager_InternalAddressConfig{
		CidrRanges: []*corev3.CidrRange{{AddressPrefix: "0.0.0.0", PrefixLen: wrapperspb.UInt32(32)}},
	}
}

// http2 has the windows that Envoy recommends at the edge.
func http2(streams uint32) *corev3.Http2ProtocolOptions {
	return &corev3.Http2ProtocolOptions{
		MaxConcurrentStreams:        wrapperspb.UInt32(streams),
		InitialStreamWindowSize:     wrapperspb.UInt32(64 << 10),
		InitialConnectionWindowSize: wrapperspb.UInt32(1 << 20),
	}
}

// routerFilter says nothing to either side of retries, timeouts and paths.
func routerFilter() *hcmv3.HttpFilter {
	return httpFilter("envoy.filters.http.router", &routerv3.Router{SuppressEnvoyHeaders: true})
}

func httpFilter(name string, config proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{
		Name:       name,
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: typed(config)},
	}
}
