package ca_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/ca"
)

// pki is an operator's own, with files to supply.
type pki struct {
	dir               string
	root, issuing     *x509.Certificate
	rootKey, issueKey *ecdsa.PrivateKey
}

func template(name string, edit func(*x509.Certificate)) *x509.Certificate {
	id := sha256.Sum256([]byte(name))
	c := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name}, SubjectKeyId: id[:20],
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
	}
	if edit != nil {
		edit(c)
	}
	return c
}

func newPKI(t *testing.T, edit func(root, issuing *x509.Certificate)) *pki {
	t.Helper()
	p := &pki{dir: t.TempDir(), rootKey: newKey(t), issueKey: newKey(t)}
	root, issuing := template("our root "+t.Name(), nil), template("our issuing "+p.dir, nil)
	if edit != nil {
		edit(root, issuing)
	}
	p.root = certificate(t, root, root, p.rootKey.Public(), p.rootKey)
	p.issuing = certificate(t, issuing, p.root, p.issueKey.Public(), p.rootKey)
	return p
}

func certificate(t *testing.T, c, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return cert
}

// supply writes certificates and a key, if any, to be read by a CA.
func (p *pki) supply(t *testing.T, key *ecdsa.PrivateKey, certs ...*x509.Certificate) *ca.Supplied {
	t.Helper()
	s := &ca.Supplied{Certificates: filepath.Join(p.dir, "ca.crt")}
	var data []byte
	for _, c := range certs {
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	must(t, os.WriteFile(s.Certificates, data, 0o600))
	if key != nil {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		must(t, err)
		s.Key = filepath.Join(p.dir, "ca.key")
		must(t, os.WriteFile(s.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	}
	return s
}

// assertWorks checks that what a CA signs verifies to a root, after a restart
// as well.
func assertWorks(t *testing.T, cfg ca.Config, root *x509.Certificate) *ca.CA {
	t.Helper()
	authority := open(t, cfg)
	for range 2 {
		chain, cert := sign(t, authority, request(t, orders))
		if !chain[2].Equal(root) {
			t.Errorf("the root is %v", chain[2].Subject)
		}
		_, err := authority.RevokeSerial(cert.Serial, "")
		must(t, err)
		chain, _ = sign(t, authority, request(t, orders))
		trust, err := identity.ParseTrust(authority.Trust())
		must(t, err)
		if _, err := trust.Verify(chain, time.Now()); err != nil {
			t.Error(err)
		}
		authority = reopen(t, authority, cfg)
	}
	return authority
}

func TestSuppliedRoot(t *testing.T) {
	t.Parallel()
	p := newPKI(t, nil)
	cfg := config(t)
	cfg.Supplied = p.supply(t, p.rootKey, p.root)
	authority := assertWorks(t, cfg, p.root)
	if bytes := readFile(t, filepath.Join(cfg.Dir, "authorities.json")); strings.Contains(string(bytes), `"key"`) && strings.Contains(string(bytes), `"root":{`) {
		t.Error("the root's key was copied")
	}
	_, err := authority.Prepare(false)
	must(t, err)
	must(t, authority.Revoke(authority.Authorities()[1].ID))
	if _, err := authority.Prepare(true); err == nil || !strings.Contains(err.Error(), "a new root must be supplied") {
		t.Errorf("Prepare with the root of before: %v", err)
	}
	// The key goes offline: what is signed goes on, the next authority not.
	must(t, os.Remove(cfg.Supplied.Key))
	authority = reopen(t, authority, cfg)
	sign(t, authority, request(t, orders))
	if _, err := authority.Prepare(false); err == nil || !strings.Contains(err.Error(), cfg.Supplied.Key) {
		t.Errorf("Prepare without the root's key: %v", err)
	}
	next := newPKI(t, nil)
	p.supply(t, next.rootKey, next.root)
	if a, err := authority.Prepare(true); err != nil || a.Root != sha256.Sum256(next.root.Raw) || len(authority.Trust().GetRoots()) != 2 {
		t.Errorf("Prepare with a new root: %v, %v", a, err)
	}
}

func TestSuppliedIssuingAuthority(t *testing.T) {
	t.Parallel()
	p := newPKI(t, nil)
	cfg := config(t)
	cfg.Supplied = p.supply(t, p.issueKey, p.issuing, p.root)
	authority := assertWorks(t, cfg, p.root)
	if _, err := authority.Prepare(false); err == nil || !strings.Contains(err.Error(), "the next authority must be supplied: put an issuing certificate with a new key") {
		t.Errorf("Prepare without another: %v", err)
	}
	key := newKey(t)
	next := certificate(t, template("the next", nil), p.root, key.Public(), p.rootKey)
	p.supply(t, key, next, p.root)
	a, err := authority.Prepare(false)
	must(t, err)
	// The first one's key is in its file no more, but the CA has it.
	authority = reopen(t, authority, cfg)
	sign(t, authority, request(t, orders))
	must(t, authority.Activate(a.ID))
	if _, cert := sign(t, authority, request(t, orders)); cert.Authority != a.ID {
		t.Errorf("authority %s signs, want %s", cert.Authority, a.ID)
	}
}

// What an operator supplies is tried before anybody depends on it (row S06).
func TestSuppliedIsRefused(t *testing.T) {
	t.Parallel()
	type certs = *x509.Certificate
	for name, test := range map[string]struct {
		edit func(root, issuing certs)
		want string
	}{
		"expired":              {func(_, c certs) { c.NotAfter = time.Now().Add(-time.Second) }, "and not now"},
		"not yet valid":        {func(_, c certs) { c.NotBefore = time.Now().Add(time.Hour); c.NotAfter = time.Now().Add(2 * time.Hour) }, "and not now"},
		"not a CA":             {func(_, c certs) { c.IsCA = false; c.KeyUsage = x509.KeyUsageDigitalSignature }, "is not a CA certificate"},
		"signs no certificate": {func(_, c certs) { c.KeyUsage = x509.KeyUsageCRLSign }, "does not verify"},
		"signs no list":        {func(_, c certs) { c.KeyUsage = x509.KeyUsageCertSign }, "lacks the key usage to sign revocation lists"},
		"other trust domain":   {func(_, c certs) { c.URIs = []*url.URL{{Scheme: "spiffe", Host: "other.example"}} }, "at most spiffe://shop.example is accepted"},
		"name with a path":     {func(_, c certs) { c.URIs = []*url.URL{{Scheme: "spiffe", Host: trustDomain, Path: "/service/orders"}} }, "at most spiffe://shop.example is accepted"},
		"for clients alone":    {func(_, c certs) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, "does not verify"},
		"for other names":      {func(_, c certs) { c.PermittedURIDomains = []string{"other.example"} }, "does not verify"},
		"path too long":        {func(r, _ certs) { r.MaxPathLenZero = true }, "does not verify"},
		"root of other names":  {func(r, _ certs) { r.ExcludedURIDomains = []string{trustDomain} }, "does not verify"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPKI(t, test.edit)
			cfg := config(t)
			cfg.Supplied = p.supply(t, p.issueKey, p.issuing, p.root)
			assertRefused(t, cfg, test.want)
			cfg.Supplied = nil
			open(t, cfg) // nothing is left of it
		})
	}
	p, other := newPKI(t, nil), newPKI(t, nil)
	for name, test := range map[string]struct {
		key   *ecdsa.PrivateKey
		certs []*x509.Certificate
		want  string
	}{
		"another's key":     {other.issueKey, []certs{p.issuing, p.root}, "private key is not the certificate's"},
		"another's root":    {p.issueKey, []certs{p.issuing, other.root}, "does not verify"},
		"no root":           {p.issueKey, []certs{p.issuing}, "is not a self-signed root"},
		"the root first":    {p.rootKey, []certs{p.root, p.issuing}, "is not a self-signed root"},
		"too many":          {p.issueKey, []certs{p.issuing, p.root, other.root}, "it has 3 certificates"},
		"no key, no signer": {nil, []certs{p.issuing, p.root}, "configure that"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t)
			cfg.Supplied = p.supply(t, test.key, test.certs...)
			assertRefused(t, cfg, test.want)
		})
	}
	t.Run("a key that others can read", func(t *testing.T) {
		cfg := config(t)
		cfg.Supplied = p.supply(t, p.issueKey, p.issuing, p.root)
		must(t, os.Chmod(cfg.Supplied.Key, 0o644))
		assertRefused(t, cfg, "must be a file with mode 0600")
	})
}
