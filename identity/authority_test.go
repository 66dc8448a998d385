package identity_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"net/url"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

const trustDomain = "shop.example"

var orders = identity.ID{Role: identity.RoleService, Name: "orders"}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// signer is an authority as tests want it, good or bad.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// sign returns a certificate for pub with a serial number of its own.
func (s signer) sign(t *testing.T, template *x509.Certificate, pub crypto.PublicKey) *x509.Certificate {
	t.Helper()
	cert, err := s.trySign(t, template, pub)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// trySign signs what package x509 may refuse to read again.
func (s signer) trySign(t *testing.T, template *x509.Certificate, pub crypto.PublicKey) (*x509.Certificate, error) {
	t.Helper()
	return x509.ParseCertificate(s.signDER(t, template, pub))
}

func (s signer) signDER(t *testing.T, template *x509.Certificate, pub crypto.PublicKey) []byte {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = serial
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.cert, pub, s.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// authorityTemplate returns what a good authority's certificate is made from.
func authorityTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
		SubjectKeyId:          []byte(rand.Text()),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true, IsCA: true,
	}
}

// newRoot returns a self-signed authority.
func newRoot(t *testing.T, change ...func(*x509.Certificate)) signer {
	t.Helper()
	template := authorityTemplate("root")
	for _, f := range change {
		f(template)
	}
	key := newKey(t)
	self := signer{cert: template, key: key}
	return signer{cert: self.sign(t, template, key.Public()), key: key}
}

// authority returns an authority that s signed.
func (s signer) authority(t *testing.T, change ...func(*x509.Certificate)) signer {
	t.Helper()
	template := authorityTemplate("authority")
	for _, f := range change {
		f(template)
	}
	key := newKey(t)
	return signer{cert: s.sign(t, template, key.Public()), key: key}
}

func (s signer) id() string { return hex.EncodeToString(s.cert.SubjectKeyId) }

// crl returns a list of revoked certificates that s signed.
func (s signer) crl(t *testing.T, revoked ...*x509.Certificate) []byte {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	for _, c := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now()})
	}
	issuer := *s.cert // which might not be allowed to
	issuer.KeyUsage |= x509.KeyUsageCRLSign
	der, err := x509.CreateRevocationList(rand.Reader, list, &issuer, s.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// leafTemplate returns what the good certificate of a URI is made from.
func leafTemplate(uri string) *x509.Certificate {
	return &x509.Certificate{
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		ExtraExtensions:       []pkix.Extension{names(uriName(uri))},
	}
}

// names returns a subject alternative name extension with any bytes in it.
func names(list ...asn1.RawValue) pkix.Extension {
	der, err := asn1.Marshal(list)
	if err != nil {
		panic(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: der}
}

func uriName(uri string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)}
}

func dnsName(name string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(name)}
}

// mesh is a trust domain with one root and one authority.
type mesh struct {
	root, authority signer
}

func newMesh(t *testing.T) mesh {
	t.Helper()
	root := newRoot(t)
	return mesh{root: root, authority: root.authority(t)}
}

// message returns what the mesh trusts.
func (m mesh) message(t *testing.T) *chancerypb.Trust {
	t.Helper()
	return &chancerypb.Trust{
		TrustDomain: trustDomain, Sequence: 1, Roots: [][]byte{m.root.cert.Raw},
		Authorities: []*chancerypb.Authority{{Id: m.authority.id(), Crl: m.authority.crl(t)}},
	}
}

func (m mesh) trust(t *testing.T, change ...func(*chancerypb.Trust)) *identity.Trust {
	t.Helper()
	message := m.message(t)
	for _, f := range change {
		f(message)
	}
	return parseTrust(t, message)
}

func parseTrust(t *testing.T, m *chancerypb.Trust) *identity.Trust {
	t.Helper()
	trust, err := identity.ParseTrust(m)
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(trust.Message(), m) {
		t.Error("another message")
	}
	return trust
}

// chain returns what stands for a leaf.
func (m mesh) chain(leaf *x509.Certificate) []*x509.Certificate {
	return []*x509.Certificate{leaf, m.authority.cert, m.root.cert}
}

// leaf returns a certificate of id that may be bad.
func (m mesh) leaf(t *testing.T, id identity.ID, change ...func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := leafTemplate(id.SPIFFE(trustDomain))
	for _, f := range change {
		f(template)
	}
	return m.authority.sign(t, template, newKey(t).Public())
}

// svid returns a good one.
func (m mesh) svid(t *testing.T, id identity.ID, change ...func(*x509.Certificate)) *identity.SVID {
	t.Helper()
	template := leafTemplate(id.SPIFFE(trustDomain))
	for _, f := range change {
		f(template)
	}
	key := newKey(t)
	leaf := m.authority.sign(t, template, key.Public())
	svid, err := identity.ParseSVID(id, key, [][]byte{leaf.Raw, m.authority.cert.Raw, m.root.cert.Raw})
	if err != nil {
		t.Fatal(err)
	}
	return svid
}

// revoked returns what says so of a certificate.
func revoked(cert *x509.Certificate) *chancerypb.RevokedCertificate {
	sum := sha256.Sum256(cert.Raw)
	return &chancerypb.RevokedCertificate{Fingerprint: sum[:]}
}
