package sidecar

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/atomicfile"
)

// svid is the workload's X.509-SVID with its key, and the trust bundle that
// others' are verified against. It is immutable.
type svid struct {
	key    *ecdsa.PrivateKey
	chain  []*x509.Certificate
	bundle []*x509.Certificate
}

// newSVID checks what the control plane, or the disk, gave: the certificate
// must be of our key and our name, and verify against the bundle.
func newSVID(id identity.ID, key *ecdsa.PrivateKey, chain, bundle [][]byte) (*svid, error) {
	s := &svid{key: key}
	var err error
	if s.chain, err = parseCertificates(chain); err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	if s.bundle, err = parseCertificates(bundle); err != nil {
		return nil, fmt.Errorf("trust bundle: %w", err)
	}
	leaf := s.chain[0]
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, errors.New("certificate is of another key")
	}
	if len(leaf.URIs) != 1 {
		return nil, errors.New("certificate does not have exactly one SPIFFE ID")
	}
	if named, err := identity.ParseSPIFFE(s.trustDomain(), s.spiffeID()); err != nil || named != id {
		return nil, fmt.Errorf("certificate is of %q, not of %s", s.spiffeID(), id)
	}
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
	for _, c := range s.bundle {
		options.Roots.AddCert(c)
	}
	for _, c := range s.chain[1:] {
		options.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(options); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *svid) spiffeID() string { return s.chain[0].URIs[0].String() }

func (s *svid) trustDomain() string { return s.chain[0].URIs[0].Host }

// expires is when the certificate ends.
func (s *svid) expires() time.Time { return s.chain[0].NotAfter }

// renewal is how long from now to ask for the next certificate: about half of
// what is left of its life, not all workloads at once.
func (s *svid) renewal() time.Duration {
	return max(jitter(time.Until(s.expires())/2, 0.1), time.Second)
}

// The files of an SVID: the key alone, and all certificates, the bundle's
// after those of the chain.
const (
	keyFile         = "svid.key"
	certificateFile = "svid.pem"
)

const bundleBlock = "TRUST BUNDLE CERTIFICATE"

// loadSVID reads the SVID that is kept in dir.
func loadSVID(dir string, id identity.ID, key *ecdsa.PrivateKey) (*svid, error) {
	rest, err := readPrivate(filepath.Join(dir, certificateFile))
	if err != nil {
		return nil, err
	}
	var chain, bundle [][]byte
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch block.Type {
		case "CERTIFICATE":
			chain = append(chain, block.Bytes)
		case bundleBlock:
			bundle = append(bundle, block.Bytes)
		}
	}
	return newSVID(id, key, chain, bundle)
}

// save keeps the certificates in dir.
func (s *svid) save(dir string) error {
	text := encodeCertificates("CERTIFICATE", s.chain) + encodeCertificates(bundleBlock, s.bundle)
	return atomicfile.Write(filepath.Join(dir, certificateFile), []byte(text), 0o600)
}

// workloadKey reads the workload's key, or makes it the first time. It never
// leaves this directory, but for the Envoy beside.
func workloadKey(dir string) (*ecdsa.PrivateKey, error) {
	key, err := loadKey[*ecdsa.PrivateKey](filepath.Join(dir, keyFile))
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return key, saveKey(filepath.Join(dir, keyFile), key)
}

// loadKey reads a private key, PKCS #8 in PEM.
func loadKey[K any](path string) (none K, err error) {
	text, err := readPrivate(path)
	if err != nil {
		return none, err
	}
	block, rest := pem.Decode(text)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return none, fmt.Errorf("%q is not one key in PEM", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(K)
	if err != nil || !ok {
		return none, fmt.Errorf("%q is not a PKCS #8 key of the expected kind", path) // the cause could quote it
	}
	return key, nil
}

// saveKey writes a private key, PKCS #8 in PEM.
func saveKey(path string, key any) error {
	text, err := encodeKey(key)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, text, 0o600)
}

func encodeKey(key any) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parseCertificates(ders [][]byte) ([]*x509.Certificate, error) {
	if len(ders) == 0 {
		return nil, errors.New("there is none")
	}
	var certificates []*x509.Certificate
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		certificates = append(certificates, c)
	}
	return certificates, nil
}

func encodeCertificates(block string, certificates []*x509.Certificate) string {
	var text strings.Builder
	for _, c := range certificates {
		text.Write(pem.EncodeToMemory(&pem.Block{Type: block, Bytes: c.Raw}))
	}
	return text.String()
}
