package envoy

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/chancery-mesh/chancery/breaker"
)

// discreetReplies keeps addresses and TLS errors, which Envoy writes into its
// own answers, from clients; they are in the access log.
func discreetReplies() *hcmv3.LocalReplyConfig {
	return &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{{
		Filter: &accesslogv3.AccessLogFilter{
			FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{
				StatusCodeFilter: &accesslogv3.StatusCodeFilter{Comparison: &accesslogv3.ComparisonFilter{
					Op: accesslogv3.ComparisonFilter_GE,
					Value: &corev3.RuntimeUInt32{
						DefaultValue: 500,
						RuntimeKey:   "chancery.discreet_replies",
					},
				}},
			},
		},
		Body: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{
			InlineString: "service unavailable\n",
		}},
	}}}
}

// unreachedReplies says when the application was not even connected to, so that
// the caller may ask another instance. Only Envoy says so: see inboundRoutes.
func unreachedReplies() *hcmv3.LocalReplyConfig {
	return &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{{
		Filter: &accesslogv3.AccessLogFilter{
			FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{
				ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: []string{"UF"}},
			},
		},
		HeadersToAdd: []*corev3.HeaderValueOption{{
			Header:       &corev3.HeaderValue{Key: breaker.HeaderUnreached, Value: "1"},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}},
	}}}
}
