package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
)

// maxCSR bounds what is parsed on behalf of a caller.
const maxCSR = 8 << 10

// PublicKey returns the public key of a certificate signing request (PKCS #10,
// DER), once its signature shows that the sender holds the private half.
// Nothing else in it is looked at: names, usages and lifetimes are for the CA
// to say.
func PublicKey(csr []byte) (crypto.PublicKey, error) {
	if len(csr) > maxCSR {
		return nil, fmt.Errorf("certificate signing request of %d bytes: at most %d are accepted", len(csr), maxCSR)
	}
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, fmt.Errorf("parse certificate signing request: %w", err)
	}
	if err := CheckKey(req.PublicKey); err != nil {
		return nil, err
	}
	if err := req.CheckSignature(); err != nil {
		return nil, fmt.Errorf("verify certificate signing request: %w", err)
	}
	return req.PublicKey, nil
}

// CheckKey refuses a public key of a kind that no certificate is signed for:
// it accepts what agents make, and its bigger sister.
func CheckKey(pub crypto.PublicKey) error {
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok || (key.Curve != elliptic.P256() && key.Curve != elliptic.P384()) {
		return errors.New("public key must be ECDSA on curve P-256 or P-384")
	}
	return nil
}
