package ca_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/ca"
)

// What is signed is an X509-SVID to the letter, and nothing that a request
// says but its key gets into it (rows S06 and S09).
func TestLeaf(t *testing.T) {
	t.Parallel()
	authority := open(t, config(t))
	basic, err := asn1.Marshal(struct {
		IsCA bool `asn1:"optional"`
	}{true})
	must(t, err)
	key := newKey(t)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:     pkix.Name{CommonName: "spiffe://shop.example/gateway/public"},
		URIs:        []*url.URL{{Scheme: "spiffe", Host: trustDomain, Path: "/gateway/public"}, {Scheme: "https", Host: "evil.example"}},
		DNSNames:    []string{"orders.shop.example"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: basic},                          // CA:true
			{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{0x03, 0x02, 0x02, 0x04}}, // keyCertSign
			{Id: asn1.ObjectIdentifier{2, 5, 29, 14}, Value: []byte{0x04, 0x04, 0x01, 0x02, 0x03, 0x04}},     // key id
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Value: []byte{0x05, 0x00}},               // anything
		},
	}, key)
	must(t, err)
	pub, err := identity.PublicKey(csr)
	must(t, err)
	chain, cert := sign(t, authority, ca.Request{ID: orders, Key: pub, TTL: time.Hour})
	leaf := chain[0]
	switch {
	case len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://shop.example/service/orders":
		t.Errorf("URI names are %v", leaf.URIs)
	case len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses)+len(leaf.Subject.Names) != 0:
		t.Errorf("other names: %v %v %v %v", leaf.DNSNames, leaf.IPAddresses, leaf.EmailAddresses, leaf.Subject)
	case leaf.IsCA || !leaf.BasicConstraintsValid || leaf.KeyUsage != x509.KeyUsageDigitalSignature:
		t.Errorf("CA %v, key usage %v", leaf.IsCA, leaf.KeyUsage)
	case !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}):
		t.Errorf("extended key usages are %v", leaf.ExtKeyUsage)
	case len(leaf.Extensions) != 6: // key usage, extended, basic, key id, authority key id, names
		t.Errorf("extensions are %v", leaf.Extensions)
	case len(leaf.SubjectKeyId) != 20 || !slices.Equal(leaf.AuthorityKeyId, chain[1].SubjectKeyId):
		t.Errorf("key ids are %x, %x", leaf.SubjectKeyId, leaf.AuthorityKeyId)
	case !key.PublicKey.Equal(leaf.PublicKey):
		t.Error("the key is another")
	}
	if text := leaf.SerialNumber.Text(16); cert.Serial != text || len(text) != 40 || leaf.SerialNumber.BitLen() < 128 {
		t.Errorf("serial is %s, in the ledger %s", text, cert.Serial)
	}
	trust, err := identity.ParseTrust(authority.Trust())
	must(t, err)
	if id, err := trust.Verify(chain, time.Now()); err != nil || id != orders {
		t.Errorf("Verify = %v, %v", id, err)
	}
}

// The control plane's own certificate is one as any other.
func TestControlPlaneHasACertificate(t *testing.T) {
	t.Parallel()
	authority := open(t, config(t))
	chain, _ := sign(t, authority, request(t, identity.ControlPlane))
	trust, err := identity.ParseTrust(authority.Trust())
	must(t, err)
	if id, err := trust.Verify(chain, time.Now()); err != nil || id != identity.ControlPlane {
		t.Errorf("Verify = %v, %v", id, err)
	}
}

func TestLifeOfALeaf(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.MaxLeaf = 2 * time.Hour
	authority := open(t, cfg)
	end := authority.Authorities()[0].NotAfter
	for name, test := range map[string]struct {
		ttl, want time.Duration
	}{
		"as asked":      {time.Hour, time.Hour},
		"ten seconds":   {10 * time.Second, 10 * time.Second},
		"more than may": {1000 * time.Hour, 2 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			req := request(t, orders)
			req.TTL = test.ttl
			before := time.Now()
			chain, cert := sign(t, authority, req)
			if life := chain[0].NotAfter.Sub(before); life < test.want-time.Second || life > test.want+time.Second {
				t.Errorf("it lives %v, want %v", life, test.want)
			}
			if !cert.Expires.Equal(chain[0].NotAfter) || chain[0].NotBefore.After(before.Add(-59*time.Second)) || chain[0].NotAfter.After(end) {
				t.Errorf("from %v to %v, ledger says %v", chain[0].NotBefore, chain[0].NotAfter, cert.Expires)
			}
		})
	}
	for _, ttl := range []time.Duration{0, -time.Hour} {
		req := request(t, orders)
		req.TTL = ttl
		if _, _, err := authority.Sign(req); err == nil {
			t.Errorf("TTL %v is accepted", ttl)
		}
	}
	authority.SetLifetimes(ca.Lifetimes{Authority: time.Minute})
	next, err := authority.Prepare(false)
	must(t, err)
	must(t, authority.Activate(next.ID))
	if chain, _ := sign(t, authority, request(t, orders)); chain[0].NotAfter.After(next.NotAfter) {
		t.Error("a certificate outlives its authority")
	}
}

func TestSignRefuses(t *testing.T) {
	t.Parallel()
	authority := open(t, config(t))
	_, cert := sign(t, authority, request(t, orders))
	_, revoked := sign(t, authority, request(t, orders))
	_, err := authority.RevokeSerial(revoked.Serial, "")
	must(t, err)
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	must(t, err)
	good := newKey(t).Public()
	for name, req := range map[string]ca.Request{
		"no identity":              {Key: good},
		"a role that is none":      {ID: identity.ID{Role: "root", Name: "a"}, Key: good},
		"upper case":               {ID: identity.ID{Role: identity.RoleService, Name: "Orders"}, Key: good},
		"another path":             {ID: identity.ID{Role: identity.RoleService, Name: "a/../orders"}, Key: good},
		"encoded":                  {ID: identity.ID{Role: identity.RoleService, Name: "%6frders"}, Key: good},
		"NUL":                      {ID: identity.ID{Role: identity.RoleService, Name: "orders\x00.evil"}, Key: good},
		"RSA":                      {ID: orders, Key: weak.Public()},
		"small curve":              {ID: orders, Key: small.Public()},
		"no key":                   {ID: orders},
		"unknown parent":           {ID: orders, Key: good, Lineage: cert.Lineage, Parent: "4242"},
		"lineage of another":       {ID: public, Key: good, Lineage: cert.Lineage},
		"lineage that was revoked": {ID: orders, Key: good, Lineage: revoked.Lineage},
		"parent without lineage":   {ID: orders, Key: good, Parent: cert.Serial},
		"parent of another":        {ID: public, Key: good, Lineage: cert.Lineage, Parent: cert.Serial},
		"parent in another line":   {ID: orders, Key: good, Lineage: revoked.Lineage, Parent: cert.Serial},
		"parent that was revoked":  {ID: orders, Key: good, Lineage: revoked.Lineage, Parent: revoked.Serial},
	} {
		t.Run(name, func(t *testing.T) {
			req.TTL = time.Hour
			chain, _, err := authority.Sign(req)
			if err == nil || chain != nil {
				t.Fatalf("Sign = %d certificates, %v", len(chain), err)
			}
			if got, want := errors.Is(err, ca.ErrRevoked), strings.Contains(name, "revoked"); got != want {
				t.Errorf("error is %v; ErrRevoked: %v", err, got)
			}
		})
	}
	must(t, authority.Close())
	if _, _, err := authority.Sign(request(t, orders)); err == nil {
		t.Error("a closed CA signs")
	}
}
