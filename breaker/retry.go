package breaker

import (
	"slices"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/chancery-mesh/chancery/mesh"
)

// safeRetries holds the conditions under which no instance has begun to work
// on the request, so that another may have it whatever its method.
var safeRetries = &mesh.Retries{
	Attempts: 2,
	On:       []string{"connect-failure", "refused-stream", "reset-before-request"},
}

// HeaderUnreached marks the answer of a sidecar that could not connect to its
// application. It tells the caller's Envoy what connect-failure would, had
// there been no sidecar in between.
const HeaderUnreached = "x-chancery-unreached"

// Back-off between attempts: short, since another instance is asked.
const (
	retryBase = 25 * time.Millisecond
	retryMax  = 250 * time.Millisecond
)

// RetryPolicy returns when a request is tried again, each time at an instance
// that was not asked yet, if there is one. A nil r retries only what surely
// reached nobody: that is how an instance leaves without a failed request.
func RetryPolicy(r *mesh.Retries) *routev3.RetryPolicy {
	if r == nil {
		r = safeRetries
	}
	policy := &routev3.RetryPolicy{
		RetryOn:    strings.Join(r.On, ","),
		NumRetries: wrapperspb.UInt32(r.Attempts),
		RetryBackOff: &routev3.RetryPolicy_RetryBackOff{
			BaseInterval: durationpb.New(retryBase),
			MaxInterval:  durationpb.New(retryMax),
		},
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name: "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{
				TypedConfig: previousHosts,
			},
		}},
		// Each is another draw from all instances: of two, three draws came too often
		// to the one that was asked already.
		HostSelectionRetryMaxAttempts: 16,
	}
	if slices.Contains(r.On, "connect-failure") {
		policy.RetryOn += ",retriable-headers"
		policy.RetriableHeaders = []*routev3.HeaderMatcher{{
			Name:                 HeaderUnreached,
			HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true},
		}}
	}
	if r.PerTry > 0 {
		policy.PerTryTimeout = durationpb.New(r.PerTry)
	}
	return policy
}

var previousHosts = func() *anypb.Any {
	config, err := anypb.New(&previoushostsv3.PreviousHostsPredicate{})
	if err != nil {
		panic(err)
	}
	return config
}()
