package envoy

import (
	"regexp"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/chancery-mesh/chancery/internal/altname"
	"github.com/chancery-mesh/chancery/mesh"
)

// clientTLS is how a gateway speaks with clients; nil is in the clear. All
// certificates are in one context: whichever host name a client asks for, if
// any, the same is demanded of it.
func clientTLS(t *mesh.GatewayTLS) *corev3.TransportSocket {
	if t == nil {
		return nil
	}
	least := tlsv3.TlsParameters_TLSv1_2
	if t.MinVersion == "1.3" {
		least = tlsv3.TlsParameters_TLSv1_3
	}
	common := &tlsv3.CommonTlsContext{
		TlsParams:     versions(least),
		AlpnProtocols: []string{"h2", "http/1.1"},
	}
	for _, name := range t.Certificates {
		common.TlsCertificateSdsSecretConfigs = append(common.TlsCertificateSdsSecretConfigs, secret(CertificateSecret(name)))
	}
	context := &tlsv3.DownstreamTlsContext{CommonTlsContext: common}
	if t.Clients != nil {
		common.ValidationContextType = verified(TrustSecret(t.Clients.Trust), alternateNames(t.Clients.Names)...)
		context.RequireClientCertificate = wrapperspb.Bool(t.Clients.Required)
		verifiedAlways(context)
	}
	return tlsSocket(typed(context))
}

func alternateNames(names []string) []*tlsv3.SubjectAltNameMatcher {
	var matchers []*tlsv3.SubjectAltNameMatcher
	for _, name := range names {
		m := &tlsv3.SubjectAltNameMatcher{SanType: tlsv3.SubjectAltNameMatcher_DNS, Matcher: exact(name)}
		switch altname.TypeOf(name) {
		case altname.URI:
			m.SanType = tlsv3.SubjectAltNameMatcher_URI
		case altname.Email:
			m.SanType = tlsv3.SubjectAltNameMatcher_EMAIL
		case altname.DNS:
			// An exact DNS name would also take a certificate's wildcard.
			m.Matcher = expression(regexp.QuoteMeta(name))
		}
		matchers = append(matchers, m)
	}
	return matchers
}
