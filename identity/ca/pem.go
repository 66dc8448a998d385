package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// parseCertificates reads a root, or an issuing certificate and its root.
func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("it has a block %q: certificates alone are expected", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	if len(certs) != 1 && len(certs) != 2 {
		return nil, fmt.Errorf("it has %d certificates: expected are a root, or an issuing certificate and then its root", len(certs))
	}
	return certs, nil
}

func parseKeyPEM(data []byte, cert *x509.Certificate) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("it has no private key in PEM")
	}
	if block.Type == "EC PRIVATE KEY" {
		key, err := x509.ParseECPrivateKey(block.Bytes)
		if err != nil || !publicEqual(key.Public(), cert.PublicKey) {
			return nil, errors.New("private key is not the certificate's")
		}
		return key, nil
	}
	return parseKey(block.Bytes, cert)
}

// parseKey reads the PKCS #8 private key of a certificate.
func parseKey(der []byte, cert *x509.Certificate) (crypto.Signer, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("private key is not PKCS #8")
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !publicEqual(key.Public(), cert.PublicKey) {
		return nil, errors.New("private key is not the certificate's")
	}
	return key, nil
}

func publicEqual(a, b crypto.PublicKey) bool {
	key, ok := a.(*ecdsa.PublicKey)
	return ok && key.Equal(b)
}
