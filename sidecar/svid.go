package sidecar

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/atomicfile"
)

// The files of an SVID: key and chain together, so that they cannot part; and
// the key that the next one is asked for with.
const (
	certificateFile = "svid.pem"
	pendingFile     = "svid.next.key"
)

// certificate is an SVID, and when it came.
type certificate struct {
	*identity.SVID
	obtained time.Time
	// renews is when to ask for the next one: about half-way through its life,
	// not all workloads at once.
	renews time.Time
	// spread is how long after the order to renew at once to do so.
	spread time.Duration
}

func newCertificate(s *identity.SVID, obtained time.Time) *certificate {
	life := s.Expires().Sub(obtained)
	return &certificate{
		SVID:     s,
		obtained: obtained,
		renews:   obtained.Add(jitter(life/2, 0.1)),
		spread:   jitter(min(life/40, time.Second), 1),
	}
}

// loadCertificate reads the SVID that is kept in dir. It came when the file was
// written.
func loadCertificate(dir string, id identity.ID) (*certificate, error) {
	path := filepath.Join(dir, certificateFile)
	text, err := identity.ReadPrivate(path)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%q does not begin with a key in PEM", path)
	}
	key, err := parseKey[*ecdsa.PrivateKey](path, block)
	if err != nil {
		return nil, err
	}
	var chain [][]byte
	for block, rest = pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		chain = append(chain, block.Bytes)
	}
	s, err := identity.ParseSVID(id, key, chain)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", path, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	obtained := info.ModTime()
	if now := time.Now(); obtained.After(now) || obtained.Before(s.Chain[0].NotBefore) {
		obtained = now // a copy, or a clock that was set
	}
	return newCertificate(s, obtained), nil
}

// save keeps the SVID in dir. The key is then no longer the next one's.
func (s *certificate) save(dir string) error {
	chain, key, err := s.pem()
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(dir, certificateFile), append(key, chain...), 0o600); err != nil {
		return fmt.Errorf("keep certificate: %w", err)
	}
	if err := os.Remove(filepath.Join(dir, pendingFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep certificate: %w", err)
	}
	return nil
}

// pem returns chain and key in PEM.
func (s *certificate) pem() (chain, key []byte, err error) {
	key, err = encodeKey(s.Key)
	return encodeCertificates(s.Chain), key, err
}

// pendingKey returns the key to ask for the next certificate with. It is the
// one of an earlier attempt that got no answer, or a new one.
func pendingKey(dir string) (crypto.Signer, error) {
	path := filepath.Join(dir, pendingFile)
	key, err := loadKey[*ecdsa.PrivateKey](path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return key, saveKey(path, key)
}

// loadKey reads a private key, PKCS #8 in PEM.
func loadKey[K any](path string) (none K, err error) {
	text, err := identity.ReadPrivate(path)
	if err != nil {
		return none, err
	}
	block, rest := pem.Decode(text)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return none, fmt.Errorf("%q is not one key in PEM", path)
	}
	return parseKey[K](path, block)
}

func parseKey[K any](path string, block *pem.Block) (none K, err error) {
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

func encodeCertificates(certificates []*x509.Certificate) []byte {
	var text []byte
	for _, c := range certificates {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return text
}
