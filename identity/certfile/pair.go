package certfile

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Pair is a server certificate with its key.
type Pair struct {
	Leaf *x509.Certificate
	// Chain is PEM, leaf first; Key is PKCS #8 in PEM.
	Chain, Key []byte
}

// IsSelfSigned reports whether the certificate vouches for itself alone.
func (p *Pair) IsSelfSigned() bool {
	l := p.Leaf
	return l.CheckSignature(l.SignatureAlgorithm, l.RawTBSCertificate, l.Signature) == nil
}

// ReadPair reads the certificate chain name.crt and the key name.key. The key's
// file must be closed to everybody but its owner, as 0600 is.
func ReadPair(dir, name string, now time.Time) (*Pair, error) {
	chain, err := read(dir, name+CertificateEnd, 0o022)
	if err != nil {
		return nil, err
	}
	key, err := read(dir, name+KeyEnd, 0o077)
	if err != nil {
		return nil, err
	}
	certificates, err := parseCertificates(chain)
	if err != nil {
		return nil, fmt.Errorf("%s%s: %w", name, CertificateEnd, err)
	}
	if err := checkChain(certificates, now); err != nil {
		return nil, fmt.Errorf("%s%s: %w", name, CertificateEnd, err)
	}
	encoded, err := parseKey(key, certificates[0])
	if err != nil {
		return nil, fmt.Errorf("%s%s: %w", name, KeyEnd, err)
	}
	return &Pair{Leaf: certificates[0], Chain: encodeCertificates(certificates), Key: encoded}, nil
}

// parseKey returns the leaf's key as PKCS #8 in PEM.
func parseKey(text []byte, leaf *x509.Certificate) ([]byte, error) {
	if bytes.Contains(text, []byte("ENCRYPTED")) {
		return nil, errors.New("the key is encrypted: decrypt it into a file with mode 0600")
	}
	own := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})
	pair, err := tls.X509KeyPair(own, text)
	if err != nil {
		return nil, errors.New("it is not one private key in PEM that the certificate is of") // the cause could quote it
	}
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		return nil, errors.New("the kind of key is unknown")
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// checkChain refuses what clients would refuse, or Envoy.
func checkChain(chain []*x509.Certificate, now time.Time) error {
	if err := checkKey(chain[0].PublicKey); err != nil {
		return err
	}
	if usages := chain[0].ExtKeyUsage; len(usages) > 0 && !slices.Contains(usages, x509.ExtKeyUsageServerAuth) &&
		!slices.Contains(usages, x509.ExtKeyUsageAny) {
		return errors.New("the certificate is not for servers: it needs the extended key usage serverAuth")
	}
	for i, c := range chain {
		if err := checkTime(c, now); err != nil {
			return err
		}
		if slices.Contains(weakSignatures, c.SignatureAlgorithm) {
			return fmt.Errorf("%s is signed by %v, which is weak", subject(c), c.SignatureAlgorithm)
		}
		if i > 0 && chain[i-1].CheckSignatureFrom(c) != nil {
			return fmt.Errorf("certificate %d, %s, is not of who signed certificate %d: order them from the leaf up", i+1, subject(c), i)
		}
	}
	return nil
}

var weakSignatures = []x509.SignatureAlgorithm{
	x509.UnknownSignatureAlgorithm, x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1,
}

func checkTime(c *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(c.NotBefore):
		return fmt.Errorf("%s is not valid before %s: look at the clock", subject(c), c.NotBefore.Format(time.RFC3339))
	case !now.Before(c.NotAfter):
		return fmt.Errorf("%s expired at %s", subject(c), c.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// checkKey accepts the keys that Envoy takes and that are strong enough.
func checkKey(public crypto.PublicKey) error {
	switch key := public.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < 2048 || bits > 4096 {
			return fmt.Errorf("an RSA key of %d bits: use 2048 to 4096", bits)
		}
		return nil
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() || key.Curve == elliptic.P384() || key.Curve == elliptic.P521() {
			return nil
		}
	}
	return errors.New("the key must be RSA, or ECDSA on curve P-256, P-384 or P-521")
}

func subject(c *x509.Certificate) string { return fmt.Sprintf("the certificate of %q", c.Subject) }
