package breaker

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	localratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/chancery-mesh/chancery/mesh"
)

// MetadataNamespace is where Envoy keeps the dynamic metadata of an ext_authz
// answer, which the keys of rate limits are read from.
const MetadataNamespace = "envoy.filters.http.ext_authz"

// MaxBuckets bounds the buckets that Envoy keeps for one limit; the least
// recently used goes first. Whoever commands that many keys can thus empty
// another's bucket, but a key comes from a verified credential or, of peers, is
// an address that can complete a TCP handshake.
const MaxBuckets = 20_000

// noKey is the key of requests that ext_authz said nothing of; they share a
// bucket.
const noKey = "(none)"

// Descriptor keys.
const (
	routeKey = "route"
	// peerKey is what Envoy calls the masked address.
	peerKey = "masked_remote_address"
)

// PeerLimit returns a limit by the address of the peer, before anything else is
// known of it. Addresses in one IPv6 /64, which one host commands, share.
func PeerLimit(l mesh.RateLimit) *localratelimitv3.LocalRateLimit {
	config := enforced("peer_limit", tokenBucket(l))
	config.Descriptors = []*ratelimitv3.LocalRateLimitDescriptor{{
		Entries:     []*ratelimitv3.RateLimitDescriptor_Entry{{Key: peerKey}},
		TokenBucket: tokenBucket(l),
	}}
	config.RateLimits = []*routev3.RateLimit{{Actions: []*routev3.RateLimit_Action{{
		ActionSpecifier: &routev3.RateLimit_Action_MaskedRemoteAddress_{
			MaskedRemoteAddress: &routev3.RateLimit_Action_MaskedRemoteAddress{
				V4PrefixMaskLen: wrapperspb.UInt32(32),
				V6PrefixMaskLen: wrapperspb.UInt32(64),
			},
		},
	}}}}
	return config
}

// NamedLimit is the limit of one route of a document.
type NamedLimit struct {
	Route string
	Limit mesh.RateLimit
}

// RouteLimits returns the limits of all routes of a virtual host, for the
// virtual host to carry. So one limit counts across all the Envoy routes that
// are made of one route; each needs the [RouteActions] that name it.
func RouteLimits(limits []NamedLimit) *localratelimitv3.LocalRateLimit {
	// Envoy has a default bucket for requests that no limit is found for. None
	// should come, so none is let through to speak of.
	config := enforced("route_limit", &typev3.TokenBucket{
		MaxTokens:     1,
		TokensPerFill: wrapperspb.UInt32(1),
		FillInterval:  durationpb.New(time.Hour),
	})
	for _, l := range limits {
		entries := []*ratelimitv3.RateLimitDescriptor_Entry{{Key: routeKey, Value: l.Route}}
		for _, key := range l.Limit.By {
			entries = append(entries, &ratelimitv3.RateLimitDescriptor_Entry{Key: string(key)})
		}
		config.Descriptors = append(config.Descriptors, &ratelimitv3.LocalRateLimitDescriptor{
			Entries:     entries,
			TokenBucket: tokenBucket(l.Limit),
		})
	}
	config.EnableXRatelimitHeaders = ratelimitv3.XRateLimitHeadersRFCVersion_DRAFT_VERSION_03
	return config
}

// RouteActions returns what an Envoy route counts its requests by.
func RouteActions(l NamedLimit) []*routev3.RateLimit {
	actions := []*routev3.RateLimit_Action{{
		ActionSpecifier: &routev3.RateLimit_Action_GenericKey_{
			GenericKey: &routev3.RateLimit_Action_GenericKey{
				DescriptorKey:   routeKey,
				DescriptorValue: l.Route,
			},
		},
	}}
	for _, key := range l.Limit.By {
		actions = append(actions, metadataAction(string(key)))
	}
	return []*routev3.RateLimit{{Actions: actions}}
}

func metadataAction(key string) *routev3.RateLimit_Action {
	return &routev3.RateLimit_Action{
		ActionSpecifier: &routev3.RateLimit_Action_Metadata{
			Metadata: &routev3.RateLimit_Action_MetaData{
				DescriptorKey: key,
				MetadataKey: &metadatav3.MetadataKey{
					Key: MetadataNamespace,
					Path: []*metadatav3.MetadataKey_PathSegment{{
						Segment: &metadatav3.MetadataKey_PathSegment_Key{Key: key},
					}},
				},
				// Without it, an empty key is not limited at all.
				DefaultValue: noKey,
				Source:       routev3.RateLimit_Action_MetaData_DYNAMIC,
			},
		},
	}
}

// enforced returns a limit of all requests, in Envoy's words.
func enforced(name string, fallback *typev3.TokenBucket) *localratelimitv3.LocalRateLimit {
	return &localratelimitv3.LocalRateLimit{
		StatPrefix:     name,
		TokenBucket:    fallback,
		FilterEnabled:  always(),
		FilterEnforced: always(),
		// The fallback is for requests without a bucket of their own.
		AlwaysConsumeDefaultTokenBucket: wrapperspb.Bool(false),
		MaxDynamicDescriptors:           wrapperspb.UInt32(MaxBuckets),
		EnableRetryAfterHeader:          true,
		RateLimitedAsResourceExhausted:  true,
	}
}

func always() *corev3.RuntimeFractionalPercent {
	return &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{
		Numerator:   100,
		Denominator: typev3.FractionalPercent_HUNDRED,
	}}
}

func tokenBucket(l mesh.RateLimit) *typev3.TokenBucket {
	return &typev3.TokenBucket{
		MaxTokens:     l.Burst,
		TokensPerFill: wrapperspb.UInt32(l.Requests),
		FillInterval:  durationpb.New(l.Per),
	}
}
