package envoy

import (
	"regexp"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// upstreamTLS proves who we are to the workload with exactly that SPIFFE ID,
// and to no other.
func upstreamTLS(spiffeID string) *corev3.TransportSocket {
	return tlsSocket(typed(&tlsv3.UpstreamTlsContext{
		CommonTlsContext: meshTLS(exact(spiffeID)),
		// A resumed session is not verified again.
		MaxSessionKeys: wrapperspb.UInt32(0),
	}))
}

// downstreamTLS demands a certificate of any workload of the trust domain;
// which of them may call is judged for each request.
func downstreamTLS(trustDomain string) *corev3.TransportSocket {
	return tlsSocket(typed(verifiedAlways(&tlsv3.DownstreamTlsContext{
		CommonTlsContext:         meshTLS(expression(workloads(trustDomain))),
		RequireClientCertificate: wrapperspb.Bool(true),
	})))
}

// workloads matches the SPIFFE IDs of all services and gateways, and nothing
// that looks alike.
func workloads(trustDomain string) string {
	return "spiffe://" + regexp.QuoteMeta(trustDomain) + `/(?:service|gateway)/[a-z0-9](?:[a-z0-9-]*[a-z0-9])?`
}

// verifiedAlways turns off resumption: the client of a resumed session is not
// verified again, though its certificate may have ended or been revoked.
func verifiedAlways(context *tlsv3.DownstreamTlsContext) *tlsv3.DownstreamTlsContext {
	context.SessionTicketKeysType = &tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption{
		DisableStatelessSessionResumption: true,
	}
	context.DisableStatefulSessionResumption = true
	return context
}

// meshTLS is TLS between two Envoys of the mesh: TLS 1.3 and HTTP/2 alone.
func meshTLS(peer *matcherv3.StringMatcher) *tlsv3.CommonTlsContext {
	return &tlsv3.CommonTlsContext{
		TlsParams:                      versions(tlsv3.TlsParameters_TLSv1_3),
		AlpnProtocols:                  []string{"h2"},
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{secret(SecretSVID)},
		ValidationContextType: verified(SecretBundle, &tlsv3.SubjectAltNameMatcher{
			SanType: tlsv3.SubjectAltNameMatcher_URI,
			Matcher: peer,
		}),
	}
}

// versions are those from least on. Envoy as a client offers at most 1.2 unless
// told.
func versions(least tlsv3.TlsParameters_TlsProtocol) *tlsv3.TlsParameters {
	return &tlsv3.TlsParameters{
		TlsMinimumProtocolVersion: least,
		TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
	}
}

// verified demands that a peer's certificate leads to what trust names and, if
// there are names, has one of them.
func verified(trust string, names ...*tlsv3.SubjectAltNameMatcher) *tlsv3.CommonTlsContext_CombinedValidationContext {
	return &tlsv3.CommonTlsContext_CombinedValidationContext{
		CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext:         &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: names},
			ValidationContextSdsSecretConfig: secret(trust),
		},
	}
}

func secret(name string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: sdsSource()}
}

func tlsSocket(context *anypb.Any) *corev3.TransportSocket {
	return &corev3.TransportSocket{
		Name:       "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: context},
	}
}
