package certfile

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// Trust is who signs certificates.
type Trust struct {
	Certificates []*x509.Certificate
	PEM          []byte
}

// ReadTrust reads name.ca.crt: authorities in PEM, all of which can sign and are
// valid now.
func ReadTrust(dir, name string, now time.Time) (*Trust, error) {
	text, err := read(dir, name+TrustEnd, 0o022)
	if err != nil {
		return nil, err
	}
	certificates, err := parseCertificates(text)
	if err != nil {
		return nil, fmt.Errorf("%s%s: %w", name, TrustEnd, err)
	}
	for _, c := range certificates {
		if err := checkTime(c, now); err != nil {
			return nil, fmt.Errorf("%s%s: %w", name, TrustEnd, err)
		}
		if !c.IsCA || !c.BasicConstraintsValid {
			return nil, fmt.Errorf("%s%s: %s is not an authority's", name, TrustEnd, subject(c))
		}
	}
	return &Trust{Certificates: certificates, PEM: encodeCertificates(certificates)}, nil
}

// parseCertificates parses PEM that holds certificates alone. What Go's parser
// would skip is an error: somebody meant something by it.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var certificates []*x509.Certificate
	for len(bytes.TrimSpace(text)) > 0 {
		block, rest := pem.Decode(text)
		if block == nil {
			return nil, errors.New("something in it is not PEM")
		}
		if block.Type != "CERTIFICATE" {
			return nil, errors.New("something in it is not a certificate: only certificates belong here")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certificates)+1, err)
		}
		certificates = append(certificates, c)
		text = rest
	}
	if len(certificates) == 0 {
		return nil, errors.New("it holds no certificate")
	}
	return certificates, nil
}

func encodeCertificates(certificates []*x509.Certificate) []byte {
	var text []byte
	for _, c := range certificates {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return text
}
