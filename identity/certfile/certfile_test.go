package certfile_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/identity/certfile"
)

var now = time.Now()

func TestReadPair(t *testing.T) {
	t.Parallel()
	root := authority(t, nil)
	middle := authority(t, root)
	stranger := authority(t, nil)
	leaf := root.issue(t, ecKey(t, elliptic.P256()), nil)
	deep := middle.issue(t, ecKey(t, elliptic.P384()), nil)
	for _, test := range []struct {
		name  string
		chain []byte
		key   []byte
		want  string // in the error; empty for none
	}{
		{"one certificate", leaf.pem(), leaf.keyPEM(t), ""},
		{"chain with its root", join(deep.pem(), middle.pem(), root.pem()), deep.keyPEM(t), ""},
		{"text ahead of the certificate", join([]byte("Certificate:\n  Data:\n"), leaf.pem()), leaf.keyPEM(t), ""},
		{"old form of key", leaf.pem(), oldKeyPEM(t, leaf), ""},
		{"RSA of 2048 bits", pemOf(t, root, rsaKey(t, 2048)), nil, ""},
		{"self-signed", selfSigned(t).pem(), nil, ""},

		{"another's key", leaf.pem(), deep.keyPEM(t), "private key"},
		{"two keys, the first another's", leaf.pem(), join(deep.keyPEM(t), leaf.keyPEM(t)), "private key"},
		{"encrypted key", leaf.pem(), []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"), "decrypt"},
		{"no key", leaf.pem(), []byte("\n"), "private key"},
		{"chain upside down", join(middle.pem(), deep.pem()), deep.keyPEM(t), "order them"},
		{"chain with a gap", join(deep.pem(), root.pem()), deep.keyPEM(t), "order them"},
		{"chain of a stranger", join(deep.pem(), stranger.pem()), deep.keyPEM(t), "order them"},
		{"twice the same", join(deep.pem(), deep.pem()), deep.keyPEM(t), "order them"},
		{"no certificate", nil, leaf.keyPEM(t), "no certificate"},
		{"key among the certificates", join(leaf.pem(), leaf.keyPEM(t)), leaf.keyPEM(t), "only certificates"},
		{"garbage at the end", join(leaf.pem(), []byte("x")), leaf.keyPEM(t), "not PEM"},
		{"cut off", leaf.pem()[:200], leaf.keyPEM(t), "not PEM"},
		{"RSA of 1024 bits", pemOf(t, root, rsaKey(t, 1024)), nil, "1024 bits"},
		{"curve P-224", pemOf(t, root, ecKey(t, elliptic.P224())), nil, "curve"},
		{"Ed25519, which Envoy does not take", pemOf(t, root, edKey(t)), nil, "must be RSA"},
		{"expired", root.issue(t, leaf.key, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }).pem(), leaf.keyPEM(t), "expired"},
		{"not yet valid", root.issue(t, leaf.key, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) }).pem(), leaf.keyPEM(t), "not valid before"},
		{"for clients only", root.issue(t, leaf.key, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}).pem(), leaf.keyPEM(t), "serverAuth"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			key := test.key
			if key == nil {
				key = keys[string(test.chain)]
			}
			write(t, filepath.Join(dir, "shop.crt"), test.chain, 0o644)
			write(t, filepath.Join(dir, "shop.key"), key, 0o600)
			pair, err := certfile.ReadPair(dir, "shop", now)
			if test.want != "" {
				wantError(t, err, test.want)
				if strings.Contains(err.Error(), "BEGIN") {
					t.Errorf("the error quotes a file: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tls.X509KeyPair(pair.Chain, pair.Key); err != nil {
				t.Errorf("what was read is no pair: %v", err)
			}
			if got, want := pair.IsSelfSigned(), test.name == "self-signed"; got != want {
				t.Errorf("self-signed: %v", got)
			}
		})
	}
}

func TestReadPairOfUnfitFiles(t *testing.T) {
	t.Parallel()
	leaf := authority(t, nil).issue(t, ecKey(t, elliptic.P256()), nil)
	for _, test := range []struct {
		name  string
		spoil func(t *testing.T, dir string)
		want  string
	}{
		{"key for the group", func(t *testing.T, dir string) { check(t, os.Chmod(filepath.Join(dir, "shop.key"), 0o640)) }, "chmod 0600"},
		{"key for all", func(t *testing.T, dir string) { check(t, os.Chmod(filepath.Join(dir, "shop.key"), 0o604)) }, "chmod 0600"},
		{"certificate that others write", func(t *testing.T, dir string) { check(t, os.Chmod(filepath.Join(dir, "shop.crt"), 0o666)) }, "chmod 0644"},
		{"key for all behind a symlink", func(t *testing.T, dir string) {
			check(t, os.Rename(filepath.Join(dir, "shop.key"), filepath.Join(dir, "hidden")))
			check(t, os.Chmod(filepath.Join(dir, "hidden"), 0o644))
			check(t, os.Symlink("hidden", filepath.Join(dir, "shop.key")))
		}, "chmod 0600"},
		{"pipe", func(t *testing.T, dir string) {
			check(t, os.Remove(filepath.Join(dir, "shop.key")))
			check(t, syscall.Mkfifo(filepath.Join(dir, "shop.key"), 0o600))
		}, "regular file"},
		{"without end", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "shop.crt"), make([]byte, 2<<20), 0o644)
		}, "larger than"},
		{"missing", func(t *testing.T, dir string) { check(t, os.Remove(filepath.Join(dir, "shop.key"))) }, "no such file"},
		{"another user's", func(t *testing.T, dir string) {
			if os.Geteuid() != 0 {
				t.Skip("needs root, to give a file away")
			}
			check(t, os.Chown(filepath.Join(dir, "shop.key"), 12345, 12345))
		}, "belongs to user 12345"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, filepath.Join(dir, "shop.crt"), leaf.pem(), 0o644)
			write(t, filepath.Join(dir, "shop.key"), leaf.keyPEM(t), 0o400)
			if _, err := certfile.ReadPair(dir, "shop", now); err != nil {
				t.Fatal(err)
			}
			test.spoil(t, dir)
			_, err := certfile.ReadPair(dir, "shop", now)
			wantError(t, err, test.want)
		})
	}
}

func TestNamesStayInTheDirectory(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	write(t, filepath.Join(outside, "shop.ca.crt"), authority(t, nil).pem(), 0o644)
	dir := filepath.Join(outside, "inside")
	check(t, os.Mkdir(dir, 0o700))
	for _, name := range []string{"../shop", "./../shop", outside + "/shop", "..", ".shop", ""} {
		if _, err := certfile.ReadTrust(dir, name, now); err == nil || !strings.Contains(err.Error(), "not the name") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestReadTrust(t *testing.T) {
	t.Parallel()
	root, other := authority(t, nil), authority(t, nil)
	leaf := root.issue(t, ecKey(t, elliptic.P256()), nil)
	for _, test := range []struct {
		name string
		text []byte
		mode fs.FileMode
		want string
	}{
		{"two", join(root.pem(), other.pem()), 0o644, ""},
		{"a leaf", leaf.pem(), 0o644, "not an authority's"},
		{"none", nil, 0o644, "no certificate"},
		{"others may add one", root.pem(), 0o664, "chmod 0644"},
		{"expired", root.issue(t, leaf.key, func(c *x509.Certificate) { c.IsCA, c.NotAfter = true, now.Add(-time.Hour) }).pem(), 0o644, "expired"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, filepath.Join(dir, "clients.ca.crt"), test.text, test.mode)
			trust, err := certfile.ReadTrust(dir, "clients", now)
			if test.want != "" {
				wantError(t, err, test.want)
				return
			}
			check(t, err)
			if !x509.NewCertPool().AppendCertsFromPEM(trust.PEM) || len(trust.Certificates) != 2 {
				t.Errorf("read %d certificates", len(trust.Certificates))
			}
		})
	}
}

// entity is a certificate with its key.
type entity struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// keys are those of certificates that [pemOf] and [selfSigned] made, by PEM.
var keys = map[string][]byte{}

func authority(t *testing.T, parent *entity) *entity {
	t.Helper()
	return issue(t, parent, ecKey(t, elliptic.P256()), func(c *x509.Certificate) {
		c.IsCA, c.ExtKeyUsage, c.KeyUsage = true, nil, x509.KeyUsageCertSign
	})
}

func (a *entity) issue(t *testing.T, key crypto.Signer, change func(*x509.Certificate)) *entity {
	t.Helper()
	return issue(t, a, key, change)
}

// issue makes a certificate; without a parent it is self-signed.
func issue(t *testing.T, parent *entity, key crypto.Signer, change func(*x509.Certificate)) *entity {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	check(t, err)
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: serial.String()},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(time.Hour),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:              []string{"shop.example"},
	}
	if change != nil {
		change(template)
	}
	if parent == nil {
		parent = &entity{cert: template, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, key.Public(), parent.key)
	check(t, err)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	return &entity{cert: cert, key: key}
}

func selfSigned(t *testing.T) *entity {
	t.Helper()
	e := issue(t, nil, ecKey(t, elliptic.P256()), nil)
	keys[string(e.pem())] = e.keyPEM(t)
	return e
}

// pemOf returns a certificate for key, and remembers the key.
func pemOf(t *testing.T, parent *entity, key crypto.Signer) []byte {
	t.Helper()
	e := parent.issue(t, key, nil)
	keys[string(e.pem())] = e.keyPEM(t)
	return e.pem()
}

func (a *entity) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func (a *entity) keyPEM(t *testing.T) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	check(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func oldKeyPEM(t *testing.T, e *entity) []byte {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(e.key.(*ecdsa.PrivateKey))
	check(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

func ecKey(t *testing.T, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	check(t, err)
	return key
}

func edKey(t *testing.T) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	return key
}

func rsaKey(t *testing.T, bits int) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	check(t, err)
	return key
}

func join(texts ...[]byte) []byte {
	var all []byte
	for _, text := range texts {
		all = append(all, text...)
	}
	return all
}

func write(t *testing.T, path string, data []byte, mode fs.FileMode) {
	t.Helper()
	check(t, os.WriteFile(path, data, 0o600))
	check(t, os.Chmod(path, mode))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, err error, part string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), part) {
		t.Errorf("error is %v, want one with %q", err, part)
	}
}
