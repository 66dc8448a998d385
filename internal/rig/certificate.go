package rig

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"

	"github.com/chancery-mesh/chancery/examples/shop/outside"
)

// CertificatesDir is where gateways find the certificates of their listeners.
func (r *Rig) CertificatesDir() string { return filepath.Join(r.dir, "certificates") }

// BundleFile is what clients verify gateways by.
func (r *Rig) BundleFile() string { return filepath.Join(r.CertificatesDir(), outside.BundleFile) }

func (r *Rig) makeCertificates(gateways []Edge) error {
	var err error
	if r.outside, err = outside.New(); err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	if err := os.Mkdir(r.CertificatesDir(), 0o700); err != nil {
		return err
	}
	for _, g := range gateways {
		if err := r.RenewCertificate(g.Name); err != nil {
			return err
		}
	}
	return nil
}

// RenewCertificate gives a gateway's listener a new certificate.
func (r *Rig) RenewCertificate(gateway string) error {
	return r.outside.Write(r.CertificatesDir(), gateway)
}

// TLS returns how a client from outside speaks to gateways; with a certificate
// of that name unless it is empty.
func (r *Rig) TLS(client string) (*tls.Config, error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(r.outside.Bundle())
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if client == "" {
		return config, nil
	}
	certificate, key, err := r.outside.Client(client)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	config.Certificates = []tls.Certificate{pair}
	return config, err
}
