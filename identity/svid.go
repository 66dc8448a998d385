package identity

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// maxChain bounds how many certificates stand for one workload.
const maxChain = 8

// SVID is a workload's certificate with its private key (an X.509-SVID,
// https://spiffe.io). It is immutable.
type SVID struct {
	ID          ID
	TrustDomain string
	// Chain has the leaf first; the root may be its last.
	Chain []*x509.Certificate
	Key   crypto.Signer
}

// ParseSVID returns the SVID that chainDER, leaf first, gives to key. It must
// be one of id, and be signed as it claims; whether anybody trusts it is for
// [Trust.Verify] to say.
func ParseSVID(id ID, key crypto.Signer, chainDER [][]byte) (*SVID, error) {
	chain, err := parseChain(chainDER)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", id, err)
	}
	s := &SVID{ID: id, Chain: chain, Key: key}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", id, err)
	}
	return s, nil
}

func (s *SVID) check() (err error) {
	leaf := s.Chain[0]
	if s.TrustDomain, err = trustDomainOf(leaf); err != nil {
		return err
	}
	if named, err := nameOf(leaf, s.TrustDomain); err != nil || named != s.ID {
		return errors.New("it names another")
	}
	if err := checkLeaf(leaf); err != nil {
		return err
	}
	for i, issuer := range s.Chain[1:] {
		if err := s.Chain[i].CheckSignatureFrom(issuer); err != nil {
			return fmt.Errorf("number %d of its chain did not sign the one before: %w", i+1, err)
		}
	}
	pub, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || s.Key == nil || !pub.Equal(s.Key.Public()) {
		return errors.New("the private key is not its own")
	}
	return nil
}

func parseChain(ders [][]byte) ([]*x509.Certificate, error) {
	if len(ders) == 0 || len(ders) > maxChain {
		return nil, fmt.Errorf("chain has %d certificates, not 1 to %d", len(ders), maxChain)
	}
	chain := make([]*x509.Certificate, len(ders))
	for i, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("parse certificate %d: %w", i, err)
		}
		chain[i] = cert
	}
	return chain, nil
}

// SPIFFEID returns the name that the certificate has.
func (s *SVID) SPIFFEID() string { return s.ID.SPIFFE(s.TrustDomain) }

// Serial returns the serial number, in lower-case hex.
func (s *SVID) Serial() string { return s.Chain[0].SerialNumber.Text(16) }

// Authority returns the id of the authority that signed the leaf: its key
// identifier in hex.
func (s *SVID) Authority() string { return hex.EncodeToString(s.Chain[0].AuthorityKeyId) }

// Expires returns when the leaf ends.
func (s *SVID) Expires() time.Time { return s.Chain[0].NotAfter }

// Fingerprint returns the SHA-256 of the leaf.
func (s *SVID) Fingerprint() [sha256.Size]byte { return sha256.Sum256(s.Chain[0].Raw) }

// TLSCertificate returns what TLS needs of s.
func (s *SVID) TLSCertificate() tls.Certificate {
	c := tls.Certificate{PrivateKey: s.Key, Leaf: s.Chain[0]}
	for _, cert := range s.Chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c
}
