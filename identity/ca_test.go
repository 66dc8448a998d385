package identity_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-mesh/chancery/identity"
)

func openCA(t *testing.T, dir string) *identity.CA {
	t.Helper()
	ca, err := identity.OpenCA(dir, trustDomain)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// sign returns the parsed certificate that ca gives to orders.
func sign(t *testing.T, ca *identity.CA, pub crypto.PublicKey, ttl time.Duration) *x509.Certificate {
	t.Helper()
	der, err := ca.Sign(pub, orders, ttl)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// verify checks cert against ca's bundle.
func verify(t *testing.T, ca *identity.CA, cert *x509.Certificate) error {
	t.Helper()
	roots := x509.NewCertPool()
	for _, der := range ca.Bundle() {
		root, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		roots.AddCert(root)
	}
	_, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err
}

func TestSignMakesAnSVID(t *testing.T) {
	t.Parallel()
	ca := openCA(t, t.TempDir()+"/ca")
	cert := sign(t, ca, newKey(t).Public(), time.Hour)
	if err := verify(t, ca, cert); err != nil {
		t.Error(err)
	}
	if len(cert.URIs) != 1 || cert.URIs[0].String() != "spiffe://shop.example/service/orders" {
		t.Errorf("URI SANs are %v", cert.URIs)
	}
	if len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.EmailAddresses) != 0 {
		t.Error("there are other SANs")
	}
	if cert.IsCA || !cert.BasicConstraintsValid || cert.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("CA %v, key usage %b", cert.IsCA, cert.KeyUsage)
	}
	if len(cert.ExtKeyUsage) != 2 {
		t.Errorf("extended key usages are %v, want server and client", cert.ExtKeyUsage)
	}
	if cert.SerialNumber.BitLen() < 64 {
		t.Errorf("serial number has %d bits", cert.SerialNumber.BitLen())
	}
	if life := cert.NotAfter.Sub(cert.NotBefore); life != time.Hour+time.Minute {
		t.Errorf("life is %v, want an hour and the minute before it", life)
	}
}

func TestSignBoundsTheLife(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/ca"
	synctest.Test(t, func(t *testing.T) {
		ca := openCA(t, dir)
		if cert := sign(t, ca, newKey(t).Public(), 365*24*time.Hour); time.Until(cert.NotAfter) > identity.MaxTTL {
			t.Errorf("ends in %v", time.Until(cert.NotAfter))
		}
		time.Sleep(10*365*24*time.Hour - time.Hour)
		if cert := sign(t, ca, newKey(t).Public(), 24*time.Hour); time.Until(cert.NotAfter) > time.Hour {
			t.Errorf("ends in %v, after the root", time.Until(cert.NotAfter))
		}
		time.Sleep(2 * time.Hour)
		if _, err := ca.Sign(newKey(t).Public(), orders, time.Hour); err == nil {
			t.Error("an expired root signed")
		}
		if _, err := identity.OpenCA(dir, trustDomain); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("opening an expired root: %v", err)
		}
	})
}

func TestSignRefuses(t *testing.T) {
	t.Parallel()
	ca := openCA(t, t.TempDir()+"/ca")
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := newKey(t).Public()
	tests := map[string]struct {
		pub crypto.PublicKey
		id  identity.ID
		ttl time.Duration
	}{
		"an RSA key":     {weak.Public(), orders, time.Hour},
		"an Ed25519 key": {edwards, orders, time.Hour},
		"no key":         {nil, orders, time.Hour},
		"no ID":          {good, identity.ID{}, time.Hour},
		"a path as name": {good, identity.ID{Role: identity.RoleService, Name: "a/../b"}, time.Hour},
		"another role":   {good, identity.ID{Role: "admin", Name: "a"}, time.Hour},
		"no time":        {good, orders, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := ca.Sign(tt.pub, tt.id, tt.ttl); err == nil {
				t.Error("signed")
			}
		})
	}
}

func TestOpenCAKeepsTheRoot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/ca"
	first := openCA(t, dir)
	cert := sign(t, first, newKey(t).Public(), time.Hour)
	if err := verify(t, openCA(t, dir), cert); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	for name, mode := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, filepath.Join(dir, "root.pem"): 0o600} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != mode {
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), mode)
		}
	}
}

func TestOpenCARefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		spoil       func(t *testing.T, dir string)
		trustDomain string
	}{
		"a file that others read": {func(t *testing.T, dir string) { t.Helper(); chmod(t, dir+"/root.pem", 0o640) }, trustDomain},
		"a directory that others enter": {func(t *testing.T, dir string) {
			t.Helper()
			chmod(t, dir, 0o755)
		}, trustDomain},
		"another trust domain": {func(*testing.T, string) {}, "other.example"},
		"a truncated file": {func(t *testing.T, dir string) {
			t.Helper()
			if err := os.Truncate(dir+"/root.pem", 200); err != nil {
				t.Fatal(err)
			}
		}, trustDomain},
		"an empty file": {func(t *testing.T, dir string) {
			t.Helper()
			if err := os.Truncate(dir+"/root.pem", 0); err != nil {
				t.Fatal(err)
			}
		}, trustDomain},
		"a link": {func(t *testing.T, dir string) {
			t.Helper()
			if err := os.Rename(dir+"/root.pem", dir+"/elsewhere"); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(dir+"/elsewhere", dir+"/root.pem"); err != nil {
				t.Fatal(err)
			}
		}, trustDomain},
		"another root's key": {func(t *testing.T, dir string) {
			t.Helper()
			openCA(t, dir+"/other")
			mixRoots(t, dir+"/root.pem", dir+"/other/root.pem")
		}, trustDomain},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir() + "/ca"
			openCA(t, dir)
			tt.spoil(t, dir)
			_, err := identity.OpenCA(dir, tt.trustDomain)
			if err == nil {
				t.Fatal("opened")
			}
			if strings.Contains(err.Error(), "BEGIN") {
				t.Errorf("the error shows the file: %v", err)
			}
		})
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// mixRoots joins the key of one root file with the certificate of another.
func mixRoots(t *testing.T, key, cert string) {
	t.Helper()
	const certificate = "-----BEGIN CERTIFICATE"
	a, errA := os.ReadFile(key)
	b, errB := os.ReadFile(cert)
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	own, _, _ := strings.Cut(string(a), certificate)
	_, other, _ := strings.Cut(string(b), certificate)
	if err := os.WriteFile(key, []byte(own+certificate+other), 0o600); err != nil {
		t.Fatal(err)
	}
}
