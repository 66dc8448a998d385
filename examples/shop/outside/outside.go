// Package outside signs the certificates that the world outside the shop's mesh
// has: those of its gateways' listeners, and of partners. A real shop gets them
// from a public authority. It has nothing to do with the mesh's own identities.
package outside

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"time"

	"github.com/chancery-mesh/chancery/internal/atomicfile"
)

// Authority signs certificates. It lives as long as its process.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	serial      int64
}

// New makes an authority.
func New() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "shop outside"}, SerialNumber: big.NewInt(1),
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(30 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	a := &Authority{key: key, serial: 1}
	a.certificate, err = x509.ParseCertificate(der)
	return a, err
}

// Bundle is what its certificates are verified by, in PEM.
func (a *Authority) Bundle() []byte { return encode("CERTIFICATE", a.certificate.Raw) }

// Server returns a certificate and its key, in PEM, for a server on this
// machine.
func (a *Authority) Server() (certificate, key []byte, err error) {
	return a.issue(&x509.Certificate{
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
}

// Client returns the same for a client of that name.
func (a *Authority) Client(name string) (certificate, key []byte, err error) {
	return a.issue(&x509.Certificate{
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{name},
	})
}

func (a *Authority) issue(template *x509.Certificate) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	a.serial++
	template.SerialNumber = big.NewInt(a.serial)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(7*24*time.Hour)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, private.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", pkcs8), err
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// Write gives a gateway of that name a new certificate in dir, where its agent
// looks for it, and writes the bundle beside it.
func (a *Authority) Write(dir, name string) error {
	certificate, key, err := a.Server()
	if err != nil {
		return err
	}
	// The key first: a certificate without its key would be of no use.
	for _, file := range []struct {
		name string
		data []byte
	}{{BundleFile, a.Bundle()}, {name + ".key", key}, {name + ".crt", certificate}} {
		if err := atomicfile.Write(filepath.Join(dir, file.name), file.data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// BundleFile is the name of the bundle's file; gateways call what is in it the
// trust "outside".
const BundleFile = "outside.ca.crt"
