package envoy

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// adsSource is the agent's aggregated stream. wait bounds how long a resource
// that was never seen holds up the one that refers to it.
func adsSource(wait time.Duration) *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
		InitialFetchTimeout:   durationpb.New(wait),
	}
}

// sdsSource is the agent's secrets.
func sdsSource() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_ApiConfigSource{
			ApiConfigSource: apiConfigSource(ClusterSDS),
		},
		ResourceApiVersion: corev3.ApiVersion_V3,
	}
}

func apiConfigSource(cluster string) *corev3.ApiConfigSource {
	return &corev3.ApiConfigSource{
		ApiType:                   corev3.ApiConfigSource_DELTA_GRPC,
		TransportApiVersion:       corev3.ApiVersion_V3,
		GrpcServices:              []*corev3.GrpcService{xdsService(cluster)},
		SetNodeOnFirstMessageOnly: true,
	}
}

// xdsService reconnects fast: Envoy's own back-off leaves it without an agent
// for seconds after a restart.
func xdsService(cluster string) *corev3.GrpcService {
	return &corev3.GrpcService{
		TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
			ClusterName: cluster,
			RetryPolicy: &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{
				BaseInterval: durationpb.New(100 * time.Millisecond),
				MaxInterval:  durationpb.New(time.Second),
			}},
		}},
	}
}
