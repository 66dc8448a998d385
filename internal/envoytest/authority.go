package envoytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"testing"
	"time"
)

// Authority issues certificates for one test, below a root.
type Authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	root *Authority
}

// NewAuthority makes a root and an authority below it.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	root := &Authority{t: t, key: newKey(t)}
	root.cert = root.sign(authorityTemplate("test root"), root.key, nil)
	root.root = root
	return root.Sibling()
}

// Sibling makes another authority below the same root.
func (a *Authority) Sibling() *Authority {
	a.t.Helper()
	sibling := &Authority{t: a.t, key: newKey(a.t), root: a.root}
	sibling.cert = a.root.sign(authorityTemplate("test authority"), sibling.key, a.root.cert)
	return sibling
}

func authorityTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// sign issues what the template says, good for an hour if it does not say; a
// nil issuer is the certificate itself.
func (a *Authority) sign(template *x509.Certificate, key *ecdsa.PrivateKey, issuer *x509.Certificate) *x509.Certificate {
	a.t.Helper()
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		a.t.Fatal(err)
	}
	sum := sha256.Sum256(public)
	template.SerialNumber = new(big.Int).SetBytes(sum[:16])
	template.SubjectKeyId = sum[:20]
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	if issuer == nil {
		issuer = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		// What crypto/x509 would not read, Envoy may.
		cert = &x509.Certificate{Raw: der, SerialNumber: template.SerialNumber}
	}
	return cert
}

// Certificate issues an X.509-SVID. The ID is written as it is, however wrong.
func (a *Authority) Certificate(spiffeID string) tls.Certificate {
	a.t.Helper()
	return a.Issue(func(c *x509.Certificate) { c.URIs = []*url.URL{URI(spiffeID)} })
}

// URI returns a URL that is written as s, whatever that is.
func URI(s string) *url.URL { return &url.URL{Opaque: s} }

// Issue issues a certificate for TLS, with what change makes of it.
func (a *Authority) Issue(change func(*x509.Certificate)) tls.Certificate {
	a.t.Helper()
	key := newKey(a.t)
	template := &x509.Certificate{
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	change(template)
	leaf := a.sign(template, key, a.cert)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw, a.cert.Raw}, PrivateKey: key, Leaf: leaf}
}

// Pool returns the root.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.root.cert)
	return pool
}

// Roots returns the root, PEM.
func (a *Authority) Roots() []byte { return encode("CERTIFICATE", a.root.cert.Raw) }

// CRL returns the list of what the authority revoked, PEM. It does not end.
func (a *Authority) CRL(revoked ...tls.Certificate) []byte {
	a.t.Helper()
	list := &x509.RevocationList{
		Number:     big.NewInt(time.Now().UnixNano()),
		ThisUpdate: time.Now().Add(-time.Minute),
		NextUpdate: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	}
	for _, cert := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: cert.Leaf.SerialNumber, RevocationTime: list.ThisUpdate})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return encode("X509 CRL", der)
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

// Client returns the TLS configuration of a workload that calls.
func (a *Authority) Client(spiffeID string) *tls.Config {
	return a.ClientWith(a.Certificate(spiffeID))
}

// ClientWith returns the TLS configuration of a client with a certificate. Like
// Envoy it trusts the root, not a host name.
func (a *Authority) ClientWith(certificate tls.Certificate) *tls.Config {
	return &tls.Config{
		// It is sent whatever authorities the server names.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil },
		InsecureSkipVerify:   true, // SVIDs have no host names; see VerifyConnection
		MinVersion:           tls.VersionTLS13,
		VerifyConnection: func(state tls.ConnectionState) error {
			options := x509.VerifyOptions{Roots: a.Pool(), Intermediates: x509.NewCertPool()}
			for _, cert := range state.PeerCertificates[1:] {
				options.Intermediates.AddCert(cert)
			}
			_, err := state.PeerCertificates[0].Verify(options)
			return err
		},
	}
}

// PEM returns a certificate chain and its key.
func PEM(t testing.TB, certificate tls.Certificate) (chain, key []byte) {
	t.Helper()
	for _, der := range certificate.Certificate {
		chain = append(chain, encode("CERTIFICATE", der)...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return chain, encode("PRIVATE KEY", der)
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
