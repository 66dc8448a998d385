package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/chancery-mesh/chancery/internal/atomicfile"
)

// rootFile holds the root's key and certificate together, so that they cannot
// part.
const rootFile = "root.pem"

// OpenCA opens the CA that is kept in dir, and makes one there the first time.
// Directory and file must be readable by their owner alone. A directory that
// was made for another trust domain is refused: its certificates would name
// the wrong mesh.
func OpenCA(dir, trustDomain string) (*CA, error) {
	if err := PrivateDir(dir); err != nil {
		return nil, fmt.Errorf("open certificate authority: %w", err)
	}
	path := filepath.Join(dir, rootFile)
	data, err := ReadPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return createCA(path, trustDomain)
	}
	if err != nil {
		return nil, fmt.Errorf("open certificate authority: %w", err)
	}
	ca, err := parseCA(data, trustDomain)
	if err != nil {
		return nil, fmt.Errorf("open certificate authority %s: %w", path, err)
	}
	return ca, nil
}

func createCA(path, trustDomain string) (*CA, error) {
	ca, err := newCA(trustDomain)
	if err != nil {
		return nil, fmt.Errorf("make certificate authority: %w", err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(ca.key)
	if err != nil {
		return nil, fmt.Errorf("make certificate authority: %w", err)
	}
	data := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	data = append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.root.Raw})...)
	if err := atomicfile.Write(path, data, 0o600); err != nil {
		return nil, fmt.Errorf("make certificate authority: %w", err)
	}
	return ca, nil
}

func parseCA(data []byte, trustDomain string) (*CA, error) {
	keyBlock, rest := pem.Decode(data)
	certBlock, rest := pem.Decode(rest)
	if keyBlock == nil || certBlock == nil || len(bytes.TrimSpace(rest)) != 0 {
		return nil, errors.New("not one private key and one certificate in PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, errors.New("private key is not PKCS #8")
	}
	root, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(root.PublicKey) {
		return nil, errors.New("private key is not the certificate's")
	}
	return newVerifiedCA(root, key, trustDomain)
}

// newVerifiedCA checks that root is still good for trustDomain.
func newVerifiedCA(root *x509.Certificate, key crypto.Signer, trustDomain string) (*CA, error) {
	switch {
	case !root.IsCA || root.CheckSignatureFrom(root) != nil:
		return nil, errors.New("certificate is not a self-signed CA")
	case len(root.URIs) != 1 || root.URIs[0].String() != "spiffe://"+trustDomain:
		return nil, fmt.Errorf("certificate is not of trust domain %q but of %v", trustDomain, root.URIs)
	case time.Now().After(root.NotAfter):
		return nil, fmt.Errorf("certificate expired at %v", root.NotAfter)
	}
	return &CA{trustDomain: trustDomain, root: root, key: key}, nil
}
