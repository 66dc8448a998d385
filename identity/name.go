package identity

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

var (
	validTrustDomain = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,254}$`)
	subjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// tagURI is uniformResourceIdentifier in a GeneralName (RFC 5280, 4.2.1.6).
const tagURI = 6

// spiffeID returns the one name that cert has, as its bytes are: package
// net/url would make "SPIFFE://" and a trailing "#" go away. A certificate with
// more names than one is nobody's.
func spiffeID(cert *x509.Certificate) (string, error) {
	var names []asn1.RawValue
	for _, e := range cert.Extensions {
		if !e.Id.Equal(subjectAltName) {
			continue
		}
		if rest, err := asn1.Unmarshal(e.Value, &names); err != nil || len(rest) != 0 {
			return "", errors.New("certificate's names cannot be read")
		}
	}
	if len(names) != 1 || names[0].Class != asn1.ClassContextSpecific || names[0].Tag != tagURI {
		return "", errors.New("certificate has not exactly one name that is a URI")
	}
	return string(names[0].Bytes), nil
}

// nameOf returns who cert says its holder is, in a trust domain.
func nameOf(cert *x509.Certificate, trustDomain string) (ID, error) {
	uri, err := spiffeID(cert)
	if err != nil {
		return ID{}, err
	}
	return ParseSPIFFE(trustDomain, uri)
}

// trustDomainOf returns the trust domain that cert's name begins with.
func trustDomainOf(cert *x509.Certificate) (string, error) {
	uri, err := spiffeID(cert)
	if err != nil {
		return "", err
	}
	rest, ok := strings.CutPrefix(uri, "spiffe://")
	domain, _, _ := strings.Cut(rest, "/")
	if !ok || !validTrustDomain.MatchString(domain) {
		return "", fmt.Errorf("certificate's name %q is no SPIFFE ID", uri)
	}
	return domain, nil
}

// checkLeaf returns an error unless cert is a leaf as X509-SVID, section 4 and 5,
// wants it: able to sign TLS handshakes on both sides, and nothing else.
func checkLeaf(cert *x509.Certificate) error {
	const signs = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	usages := map[x509.ExtKeyUsage]bool{}
	for _, u := range cert.ExtKeyUsage {
		usages[u] = true
	}
	switch {
	case cert.IsCA || cert.KeyUsage&signs != 0:
		return errors.New("certificate is an authority's")
	case cert.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return errors.New("certificate has no key usage digitalSignature")
	case !usages[x509.ExtKeyUsageServerAuth] || !usages[x509.ExtKeyUsageClientAuth]:
		return errors.New("certificate is not for both serverAuth and clientAuth")
	}
	return nil
}

// checkAuthority returns an error unless cert may sign for a trust domain: it
// names no workload, and no other trust domain.
func checkAuthority(cert *x509.Certificate, trustDomain string) error {
	if !cert.BasicConstraintsValid || !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return fmt.Errorf("certificate of %q may not sign others", cert.Subject)
	}
	if len(cert.URIs) == 0 {
		return nil
	}
	if uri, err := spiffeID(cert); err != nil || uri != "spiffe://"+trustDomain {
		return fmt.Errorf("certificate of %q is not an authority of trust domain %q", cert.Subject, trustDomain)
	}
	return nil
}
