package envoy

import (
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// Headers that no listener takes from the other side: what Envoy believes about
// itself (retries, timeouts, what is internal), what it says of the peer's
// certificate, and claims about the tenant.
var neverBelieved = []*matcherv3.StringMatcher{
	prefix("x-envoy-"),
	exact("x-forwarded-client-cert"),
	prefix("x-tenant"),
}

// Headers that, besides, nobody may send who is no workload: where the request
// says it comes from, and what servers take instead of the path or the method
// that policy saw.
var neverFromStrangers = append([]*matcherv3.StringMatcher{
	exact("forwarded"),
	prefix("x-forwarded-"),
	exact("x-real-ip"),
	exact("true-client-ip"),
	exact("x-client-ip"),
	exact("x-cluster-client-ip"),
	prefix("x-original-"),
	prefix("x-rewrite-"),
	exact("x-http-method"),
	exact("x-http-method-override"),
	exact("x-method-override"),
}, neverBelieved...)

// Headers that, besides, no client of a gateway may send: the Passport in all
// spellings that some server takes for it, and the correlation ID.
var neverFromOutside = append([]*matcherv3.StringMatcher{
	expression("txn[^a-z0-9]?token"),
	exact("x-request-id"),
}, neverFromStrangers...)

// Headers of answers that are between Envoys, or nobody's business.
var neverAnswered = []*matcherv3.StringMatcher{
	prefix("x-envoy-"),
	prefix("x-chancery-"),
	expression("txn[^a-z0-9]?token"),
	exact("x-powered-by"),
}

// early removes headers before Envoy itself or any filter reads them.
func early(headers []*matcherv3.StringMatcher) []*corev3.TypedExtensionConfig {
	return []*corev3.TypedExtensionConfig{{
		Name:        "envoy.http.early_header_mutation.header_mutation",
		TypedConfig: typed(&earlyv3.HeaderMutation{Mutations: remove(headers)}),
	}}
}

// answerFilter removes headers from answers, local ones too, and what
// [trailerFilter] does.
func answerFilter() *hcmv3.HttpFilter {
	mutations := trailerMutations()
	mutations.ResponseMutations = remove(neverAnswered)
	return mutationFilter(mutations)
}

// trailerFilter removes what comes after the body of a request, since no policy
// sees it: a Passport there might be taken for one that was verified. Who passes
// on requests may discard it (RFC 9110 section 6.5.1), and gRPC has none.
func trailerFilter() *hcmv3.HttpFilter { return mutationFilter(trailerMutations()) }

func trailerMutations() *headermutationv3.Mutations {
	return &headermutationv3.Mutations{
		RequestTrailersMutations: remove([]*matcherv3.StringMatcher{expression(".*")}), ResponseTrailersMutations: remove(neverAnswered),
	}
}

func mutationFilter(mutations *headermutationv3.Mutations) *hcmv3.HttpFilter {
	return httpFilter("envoy.filters.http.header_mutation", &headermutationv3.HeaderMutation{Mutations: mutations})
}

func remove(headers []*matcherv3.StringMatcher) []*mutationv3.HeaderMutation {
	mutations := make([]*mutationv3.HeaderMutation, len(headers))
	for i, key := range headers {
		mutations[i] = &mutationv3.HeaderMutation{
			Action: &mutationv3.HeaderMutation_RemoveOnMatch_{
				RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{KeyMatcher: key},
			},
		}
	}
	return mutations
}

func exact(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}
}

func prefix(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: s}}
}

func expression(re2 string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{
		MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex(re2)},
	}
}

// regex matches a whole string.
func regex(re2 string) *matcherv3.RegexMatcher {
	return &matcherv3.RegexMatcher{Regex: re2}
}
