package envoy

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/chancery-mesh/chancery/identity"
)

const (
	filterAuthz = "envoy.filters.http.ext_authz"
	// authzTimeout is generous. Most checks do no I/O, so only a machine that is
	// out of CPU needs it, and there a late answer is better than a 503. A check
	// may ask an identity provider about an opaque token, though, or wait for its
	// record on a disk; package introspection gives up within this.
	authzTimeout = 2 * time.Second
)

// authzFilter asks the agent about every request, unless the route is a direct
// response. No answer is a 503, never a pass.
func authzFilter() *hcmv3.HttpFilter {
	return httpFilter(filterAuthz, &extauthzv3.ExtAuthz{
		Services: &extauthzv3.ExtAuthz_GrpcService{GrpcService: &corev3.GrpcService{
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: ClusterAuthz},
			},
			Timeout: durationpb.New(authzTimeout),
		}},
		TransportApiVersion: corev3.ApiVersion_V3,
		FailureModeAllow:    false,
		StatusOnError:       &typev3.HttpStatus{Code: typev3.StatusCode_ServiceUnavailable},
		// Headers in bytes, and those that come twice apart.
		EncodeRawHeaders: true,
		// Bodies in bytes, too: Envoy writes an exclamation mark for what is not UTF-8
		// otherwise, and the service would read another text than the rule. It looks
		// for this here alone; how much is shown, if anything, is the route's to say.
		WithRequestBody: &extauthzv3.BufferSettings{MaxRequestBytes: 1, PackAsBytes: true},
		// A revoked one is refused on connections that are open, too.
		IncludePeerCertificate: true,
		ValidateMutations:      true,
	})
}

// checked names the policy and the route that the agent shall decide by, and
// shows it bodies of up to maxBody bytes. Larger ones are answered with 413: of
// a part, nothing would be known.
func checked(policy identity.ID, route string, maxBody uint32) *anypb.Any {
	settings := &extauthzv3.CheckSettings{ContextExtensions: map[string]string{
		ContextPolicy: policy.String(),
		ContextRoute:  route,
	}, DisableRequestBodyBuffering: maxBody == 0}
	if maxBody > 0 {
		settings.WithRequestBody = &extauthzv3.BufferSettings{MaxRequestBytes: maxBody}
	}
	return typed(&extauthzv3.ExtAuthzPerRoute{
		Override: &extauthzv3.ExtAuthzPerRoute_CheckSettings{CheckSettings: settings},
	})
}

// unchecked is for direct responses alone.
func unchecked() *anypb.Any {
	return typed(&extauthzv3.ExtAuthzPerRoute{
		Override: &extauthzv3.ExtAuthzPerRoute_Disabled{Disabled: true},
	})
}
