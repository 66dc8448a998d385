package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/chancery-mesh/chancery/identity"
)

// ErrRevoked says that a certificate may not be renewed, because it is revoked.
var ErrRevoked = errors.New("certificate is revoked")

// Request asks for the certificate of a workload that has proved who it is.
type Request struct {
	ID  identity.ID
	Key crypto.PublicKey
	// TTL is the life asked for; the CA may give less.
	TTL time.Duration
	// Lineage and Parent are those of the certificate that this one renews:
	// its lineage, and its serial. Both empty begin a new lineage. A lineage
	// without a parent is begun, or goes on, by an attestation.
	Lineage, Parent string
}

// Sign signs a certificate and returns its chain, DER, leaf first and root
// last. It is in the ledger, on disk, when Sign returns. Everything in it but
// the key is the CA's choice (X509-SVID section 4). errors.Is finds [ErrRevoked]
// where the parent is revoked, and [ErrTooMany].
//
// A request that is repeated, since its answer was lost, say, gets the same
// certificate again until that is past half of its life.
func (ca *CA) Sign(req Request) ([][]byte, Certificate, error) {
	chain, cert, err := ca.sign(req)
	if err != nil {
		return nil, Certificate{}, fmt.Errorf("sign certificate of %s: %w", req.ID, err)
	}
	return chain, cert, nil
}

func (ca *CA) sign(req Request) ([][]byte, Certificate, error) {
	if _, err := identity.ParseSPIFFE(ca.cfg.TrustDomain, req.ID.SPIFFE(ca.cfg.TrustDomain)); err != nil {
		return nil, Certificate{}, err
	}
	if err := identity.CheckKey(req.Key); err != nil {
		return nil, Certificate{}, err
	}
	by, err := ca.snapshot().active()
	if err != nil {
		return nil, Certificate{}, err
	}
	again, err := ca.admit(req, by)
	switch {
	case err != nil:
		return nil, Certificate{}, err
	case again != nil:
		return [][]byte{again.leaf, by.cert.Raw, by.root.Raw}, again.Certificate, nil
	}
	now := ca.cfg.Now()
	leaf, err := ca.signLeaf(by, req, now)
	if err != nil {
		return nil, Certificate{}, err
	}
	cert := newCertificate(leaf, req, by.ID, now)
	if err := ca.record(cert, leaf.Raw); err != nil {
		return nil, Certificate{}, err
	}
	return [][]byte{leaf.Raw, by.cert.Raw, by.root.Raw}, cert, nil
}

func (ca *CA) signLeaf(by *issuer, req Request, now time.Time) (*x509.Certificate, error) {
	end := now.Add(min(req.TTL, ca.cfg.MaxLeaf))
	for _, above := range []*x509.Certificate{by.cert, by.root} {
		if end.After(above.NotAfter) {
			end = above.NotAfter
		}
	}
	if !end.After(now) {
		return nil, fmt.Errorf("it would end at %v, before it began; if authority %s has ended, prepare and activate another", end, by.ID)
	}
	return by.signLeaf(leafRequest{spiffeID: req.ID.SPIFFE(ca.cfg.TrustDomain), key: req.Key, begin: now.Add(-backdate), end: end})
}

// leafRequest is all that differs between the certificates of workloads.
type leafRequest struct {
	spiffeID   string
	key        crypto.PublicKey
	begin, end time.Time
}

func (i *issuer) signLeaf(req leafRequest) (*x509.Certificate, error) {
	spki, err := x509.MarshalPKIXPublicKey(req.key)
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(spki)
	uri, err := url.Parse(req.spiffeID)
	if err != nil {
		return nil, err
	}
	return create(&x509.Certificate{
		SerialNumber:          newSerial(),
		NotBefore:             req.begin,
		NotAfter:              req.end,
		URIs:                  []*url.URL{uri},
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		SubjectKeyId:          id[:20],
	}, i.cert, req.key, i.key)
}

// newSerial returns a random number of 158 bits, so that none is ever made
// twice, whatever is forgotten. Its first digit is never zero: its hexadecimal
// form is the same everywhere.
func newSerial() *big.Int {
	var b [20]byte
	_, _ = rand.Read(b[:]) // never fails
	b[0] = b[0]&0x3f | 0x40
	return new(big.Int).SetBytes(b[:])
}
