package ca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/chancery-mesh/chancery/identity"
)

// Supplied says where a root or issuing authorities come from that an operator
// keeps. Files are read at the first start and again at each [CA.Prepare], so
// the next authority is supplied by replacing them. In between they need not
// be there: a root's key can stay offline.
type Supplied struct {
	// Certificates is a PEM file: one self-signed root, under which the CA
	// makes its authorities; or an issuing certificate and then its root.
	Certificates string
	// Key is a PEM file, mode 0600, with the private key of the first
	// certificate. An issuing key is copied into the CA's state file; a
	// root's is not. Empty with Signer.
	Key string
	// Signer returns what signs for a certificate whose private key is kept
	// elsewhere; see [CommandSigner].
	Signer func(*x509.Certificate) (crypto.Signer, error)
}

// signer returns the external signer of a certificate.
func (s *Supplied) signer(cert *x509.Certificate) (crypto.Signer, error) {
	if s == nil || s.Signer == nil {
		return nil, errors.New("its private key is kept by an external signer: configure that")
	}
	key, err := s.Signer(cert)
	if err != nil {
		return nil, fmt.Errorf("external signer: %w", err)
	}
	if !publicEqual(key.Public(), cert.PublicKey) {
		return nil, errors.New("external signer has the key of another certificate")
	}
	return externalSigner{key}, nil
}

// externalSigner marks a key that cannot be kept in the state file.
type externalSigner struct{ crypto.Signer }

func extractable(key crypto.Signer) bool {
	_, external := key.(externalSigner)
	return !external
}

// read returns what is supplied now.
func (s *Supplied) read() (cert, top *x509.Certificate, key crypto.Signer, err error) {
	data, err := os.ReadFile(s.Certificates)
	if err != nil {
		return nil, nil, nil, err
	}
	certs, err := parseCertificates(data)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("read %s: %w", s.Certificates, err)
	}
	cert, top = certs[0], certs[len(certs)-1]
	if s.Key == "" {
		key, err = s.signer(cert)
		return cert, top, key, err
	}
	data, err = identity.ReadPrivate(s.Key)
	if err != nil {
		return nil, nil, nil, err
	}
	key, err = parseKeyPEM(data, cert)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("read %s: %w", s.Key, err)
	}
	return cert, top, key, nil
}

// suppliedAuthority makes an authority under the root that is supplied, or
// takes the one that is.
func (ca *CA) suppliedAuthority(next *state, newRoot bool, now time.Time, lifetimes Lifetimes) (*issuer, error) {
	s := ca.cfg.Supplied
	cert, top, key, err := s.read()
	if err != nil {
		return nil, fmt.Errorf("supplied authority: %w", err)
	}
	if err := checkSupplied(cert, top, ca.cfg.TrustDomain, now); err != nil {
		return nil, fmt.Errorf("supplied authority in %s: %w", s.Certificates, err)
	}
	if newRoot && slices.ContainsFunc(next.authorities, func(i *issuer) bool { return i.root.Equal(top) }) {
		return nil, fmt.Errorf("a new root must be supplied: put it into %s in place of %q, see that the key is there too, and prepare again", s.Certificates, top.Subject)
	}
	// A root of the CA's own, from before, signs nothing more.
	next.root = nil
	if cert.Equal(top) {
		return makeAuthority(&root{cert: top, key: key}, ca.cfg.TrustDomain, now, lifetimes.Authority)
	}
	if slices.ContainsFunc(next.authorities, func(i *issuer) bool { return bytes.Equal(i.cert.SubjectKeyId, cert.SubjectKeyId) }) {
		return nil, fmt.Errorf("the next authority must be supplied: put an issuing certificate with a new key, and its root, into %s, see that its key is there too, and prepare again", s.Certificates)
	}
	return newIssuer(cert, top, key), nil
}

// checkSupplied says what a probe signature would not, or not well.
func checkSupplied(cert, top *x509.Certificate, trustDomain string, now time.Time) error {
	for _, c := range []*x509.Certificate{cert, top} {
		switch {
		case !c.BasicConstraintsValid || !c.IsCA:
			return fmt.Errorf("%q is not a CA certificate", c.Subject)
		case now.Before(c.NotBefore) || !now.Before(c.NotAfter):
			return fmt.Errorf("%q is valid from %v to %v, and not now", c.Subject, c.NotBefore, c.NotAfter)
		case len(c.URIs) > 1 || len(c.URIs) == 1 && c.URIs[0].String() != "spiffe://"+trustDomain:
			return fmt.Errorf("%q has URI names %v: at most spiffe://%s is accepted", c.Subject, c.URIs, trustDomain)
		case len(c.SubjectKeyId) == 0:
			return fmt.Errorf("%q has no subject key identifier", c.Subject)
		}
	}
	if err := top.CheckSignatureFrom(top); err != nil {
		return fmt.Errorf("%q is not a self-signed root: %w", top.Subject, err)
	}
	if err := identity.CheckKey(cert.PublicKey); err != nil {
		return fmt.Errorf("%q: %w", cert.Subject, err)
	}
	if !cert.Equal(top) && cert.KeyUsage&x509.KeyUsageCRLSign == 0 {
		return fmt.Errorf("%q lacks the key usage to sign revocation lists", cert.Subject)
	}
	return nil
}
