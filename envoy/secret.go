package envoy

import (
	"errors"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// Names of the secrets that the agent serves by SDS.
const (
	// SecretSVID is the workload's certificate and key.
	SecretSVID = "svid"
	// SecretBundle is the trust bundle of the mesh.
	SecretBundle = "bundle"
)

// CertificateSecret returns the name of the secret of a gateway's server
// certificate.
func CertificateSecret(name string) string { return "certificate/" + name }

// TrustSecret returns the name of the secret of who signs clients' certificates.
func TrustSecret(name string) string { return "trust/" + name }

// KeyPair returns the secret of a certificate chain, leaf first, with its key;
// both are PEM.
func KeyPair(name string, chain, key []byte) *tlsv3.Secret {
	return &tlsv3.Secret{
		Name: name,
		Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: inline(chain),
			PrivateKey:       inline(key),
		}},
	}
}

// ErrNoCRL says that there is no list of revoked certificates.
var ErrNoCRL = errors.New("no certificate revocation list: revoked certificates would be taken")

// TrustBundle returns [SecretBundle]: the roots that the certificates of
// workloads lead to, and the revocation lists of all authorities below them;
// both are PEM. What an authority signed whose list is missing is refused, so
// an authority is revoked by leaving its list out. Without any list Envoy would
// look for none: that is [ErrNoCRL].
func TrustBundle(roots, crls []byte) (*tlsv3.Secret, error) {
	if len(crls) == 0 {
		return nil, ErrNoCRL
	}
	secret := ClientTrust(SecretBundle, roots)
	context := secret.GetValidationContext()
	context.Crl = inline(crls)
	// The roots have no lists.
	context.OnlyVerifyLeafCertCrl = true
	return secret, nil
}

// ClientTrust returns a secret with roots, PEM, that certificates lead to.
func ClientTrust(name string, roots []byte) *tlsv3.Secret {
	return &tlsv3.Secret{
		Name: name,
		Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: inline(roots),
		}},
	}
}

func inline(data []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: data}}
}
