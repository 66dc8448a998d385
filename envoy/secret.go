package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// Secrets returns what the agent serves by SDS: the workload's certificate
// chain with its key, and the trust bundle; all arguments are PEM.
func Secrets(chain, key, bundle []byte) []*tlsv3.Secret {
	return []*tlsv3.Secret{
		{
			Name: SecretSVID,
			Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
				CertificateChain: inline(chain),
				PrivateKey:       inline(key),
			}},
		},
		{
			Name: SecretBundle,
			Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
				TrustedCa: inline(bundle),
			}},
		},
	}
}

func inline(data []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: data}}
}
