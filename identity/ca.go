package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/url"
	"time"
)

const (
	rootLifetime = 10 * 365 * 24 * time.Hour
	// backdate is how far in the past a certificate's life begins, for peers
	// whose clocks are behind.
	backdate = time.Minute
	// MaxTTL caps the life of a workload's certificate.
	MaxTTL = 7 * 24 * time.Hour
)

// CA is the mesh's certificate authority: one self-signed root that signs the
// certificates of workloads (X.509-SVIDs, https://spiffe.io). It is immutable
// and safe for concurrent use.
type CA struct {
	trustDomain string
	root        *x509.Certificate
	key         crypto.Signer
}

// TrustDomain returns the trust domain that the CA speaks for.
func (ca *CA) TrustDomain() string { return ca.trustDomain }

// Bundle returns the trust bundle: the DER certificates that verify what the
// CA signs.
func (ca *CA) Bundle() [][]byte { return [][]byte{ca.root.Raw} }

// Sign returns a DER certificate that binds pub to id for ttl from now, but
// not longer than [MaxTTL] or the root's own life. Everything in it but the
// key is the CA's choice (X509-SVID section 4).
func (ca *CA) Sign(pub crypto.PublicKey, id ID, ttl time.Duration) ([]byte, error) {
	if _, err := ParseSPIFFE(ca.trustDomain, id.SPIFFE(ca.trustDomain)); err != nil {
		return nil, err
	}
	if err := checkKey(pub); err != nil {
		return nil, err
	}
	now := time.Now()
	end := now.Add(min(ttl, MaxTTL))
	if end.After(ca.root.NotAfter) {
		end = ca.root.NotAfter
	}
	if !end.After(now) {
		return nil, fmt.Errorf("sign certificate of %s: it would end at %v, before it began", id, end)
	}
	template := &x509.Certificate{
		NotBefore:             now.Add(-backdate),
		NotAfter:              end,
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: ca.trustDomain, Path: "/" + id.String()}},
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.root, pub, ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %s: %w", id, err)
	}
	return der, nil
}

// newCA makes a new root for a trust domain.
func newCA(trustDomain string) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"Chancery"}, CommonName: trustDomain},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(rootLifetime),
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign root of %q: %w", trustDomain, err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &CA{trustDomain: trustDomain, root: root, key: key}, nil
}
