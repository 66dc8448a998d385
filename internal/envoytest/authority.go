package envoytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// Authority is a certificate authority for one test.
type Authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes one.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{t: t, key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "test authority"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

// Certificate issues an X.509-SVID.
func (a *Authority) Certificate(spiffeID string) tls.Certificate {
	a.t.Helper()
	id, err := url.Parse(spiffeID)
	if err != nil {
		a.t.Fatal(err)
	}
	key := newKey(a.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:         []*url.URL{id},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Pool returns the trust bundle.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Server returns the TLS configuration of a workload that takes calls.
func (a *Authority) Server(spiffeID string) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{a.Certificate(spiffeID)},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    a.Pool(),
		MinVersion:   tls.VersionTLS13,
	}
}

// Client returns the TLS configuration of a workload that calls. Like Envoy it
// trusts the bundle, not a host name.
func (a *Authority) Client(spiffeID string) *tls.Config {
	return &tls.Config{
		Certificates:       []tls.Certificate{a.Certificate(spiffeID)},
		InsecureSkipVerify: true, // SVIDs have no host names; see VerifyConnection
		MinVersion:         tls.VersionTLS13,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: a.Pool()})
			return err
		},
	}
}

// ServeTo makes an agent serve the secrets of a workload: its SVID and the
// trust bundle, under those names.
func (a *Authority) ServeTo(agent *Agent, spiffeID, svid, bundle string) {
	a.t.Helper()
	cert := a.Certificate(spiffeID)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		a.t.Fatal(err)
	}
	agent.Set(resourcev3.SecretType, svid, &tlsv3.Secret{Name: svid, Type: &tlsv3.Secret_TlsCertificate{
		TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: pemSource("CERTIFICATE", cert.Certificate[0]),
			PrivateKey:       pemSource("PRIVATE KEY", key),
		},
	}})
	agent.Set(resourcev3.SecretType, bundle, &tlsv3.Secret{Name: bundle, Type: &tlsv3.Secret_ValidationContext{
		ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: pemSource("CERTIFICATE", a.cert.Raw),
		},
	}})
}

func pemSource(kind string, der []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{
		InlineBytes: pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}),
	}}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
