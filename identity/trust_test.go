package identity_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

func TestVerify(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	trust := m.trust(t)
	for _, id := range []identity.ID{orders, {Role: identity.RoleGateway, Name: "public"}, identity.ControlPlane} {
		leaf := m.leaf(t, id)
		for name, chain := range map[string][]*x509.Certificate{
			"with the root": m.chain(leaf), "without": m.chain(leaf)[:2],
			"in any order": {leaf, m.root.cert, m.authority.cert},
		} {
			if got, err := trust.Verify(chain, time.Now()); err != nil || got != id {
				t.Errorf("%s %s: %v, %v", id, name, got, err)
			}
		}
	}
	if !trust.HasAuthority(m.authority.id()) || trust.HasAuthority("") || trust.TrustDomain() != trustDomain ||
		trust.Sequence() != 1 || len(trust.Roots()) != 1 {
		t.Errorf("trust is %+v", trust)
	}
}

// Rows S01 to S05: what a certificate is called.
var badNames = map[string]pkix.Extension{
	"no URI but a DNS name": names(dnsName("orders")),
	"two of ours":           names(uriName("spiffe://shop.example/service/orders"), uriName("spiffe://shop.example/service/inventory")),
	"ours twice":            names(uriName("spiffe://shop.example/service/orders"), uriName("spiffe://shop.example/service/orders")),
	"ours and another's":    names(uriName("spiffe://shop.example/service/orders"), uriName("spiffe://other.example/service/orders")),
	"ours and no SPIFFE ID": names(uriName("https://shop.example"), uriName("spiffe://shop.example/service/orders")),
	"ours and a DNS name":   names(uriName("spiffe://shop.example/service/orders"), dnsName("orders")),
	"a DNS name with a NUL": names(uriName("spiffe://shop.example/service/orders"), dnsName("orders\x00.evil")),
	"a name of another tag": names(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 1, Bytes: []byte("spiffe://shop.example/service/orders")}),
	"no name":               names(),
}

// badURIs are all but one way to write a name.
var badURIs = []string{
	"spiffe://shop.example.evil.com/service/orders", "spiffe://evil.shop.example/service/orders",
	"spiffe://SHOP.example/service/orders", "spiffe://shop.example:80/service/orders",
	"spiffe://u@shop.example/service/orders", "spiffe://shop.example./service/orders",
	"SPIFFE://shop.example/service/orders", "Spiffe://shop.example/service/orders",
	"https://shop.example/service/orders", "spiffe:/shop.example/service/orders", "spiffe://",
	"spiffe://shop.example", "spiffe://shop.example/", "spiffe://shop.example/service",
	"spiffe://shop.example/service/", "spiffe://shop.example//service/orders",
	"spiffe://shop.example/service//orders", "spiffe://shop.example/service/orders/",
	"spiffe://shop.example/service/inventory/../orders", "spiffe://shop.example/service/./orders",
	"spiffe://shop.example/service%2forders", "spiffe://shop.example/service/%6frders",
	"spiffe://shop.example/service/Orders", "spiffe://shop.example/Service/orders",
	"spiffe://shop.example/service/orders?", "spiffe://shop.example/service/orders?x",
	"spiffe://shop.example/service/orders#", "spiffe://shop.example/service/orders#x",
	"spiffe://shop.example/service/orders ", " spiffe://shop.example/service/orders",
	"spiffe://shop.example/admin/orders", "spiffe://shop.example/control-plane/", "spiffe://shop.example/control-plane/x",
	"spiffe://shop.example/service/orders\x00.evil", "spiffe://shop.example/service/orders\x00",
	"spiffe://shop.example\x00.evil/service/orders", "spiffe://shop.example/service/orders\n",
	"spiffe://shop.example/service/" + strings.Repeat("a", 2049),
	"spiffe://sh\xd0\xbep.example/service/orders", "spiffe://shop.example/service/\xd0\xberders",
}

func TestVerifyRefusesNames(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	trust := m.trust(t)
	cases, unread := maps.Clone(badNames), 0
	for _, uri := range badURIs {
		cases[uri] = names(uriName(uri))
	}
	for name, extension := range cases {
		template := leafTemplate("")
		template.Subject.CommonName = "spiffe://shop.example/service/orders"
		template.ExtraExtensions = []pkix.Extension{extension}
		leaf, err := m.authority.trySign(t, template, newKey(t).Public())
		if err != nil {
			unread++ // by package x509, and so by TLS
			continue
		}
		if id, err := trust.Verify(m.chain(leaf), time.Now()); err == nil {
			t.Errorf("%q is %v", name, id)
		}
	}
	if unread > len(cases)/2 {
		t.Errorf("of %d certificates %d were not read", len(cases), unread)
	}
	bare := m.leaf(t, orders, func(c *x509.Certificate) {
		c.ExtraExtensions = nil
		c.Subject.CommonName = "spiffe://shop.example/service/orders"
	})
	if id, err := trust.Verify(m.chain(bare), time.Now()); err == nil {
		t.Errorf("a common name is %v", id)
	}
}

func TestVerifyRefusesLeaves(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	trust := m.trust(t)
	tests := map[string]func(*x509.Certificate){
		"expired":             func(c *x509.Certificate) { c.NotBefore, c.NotAfter = ago(2*time.Hour), ago(time.Second) },
		"not yet valid":       func(c *x509.Certificate) { c.NotBefore, c.NotAfter = ago(-time.Minute), ago(-time.Hour) },
		"serverAuth only":     func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] },
		"clientAuth only":     func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] },
		"no extended usage":   func(c *x509.Certificate) { c.ExtKeyUsage = nil },
		"any extended usage":  func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} },
		"no digitalSignature": func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement },
		"no key usage":        func(c *x509.Certificate) { c.KeyUsage = 0 },
		"keyCertSign":         func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign },
		"cRLSign":             func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign },
		"CA":                  func(c *x509.Certificate) { c.IsCA = true },
		"unknown critical extension": func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		},
	}
	for name, change := range tests {
		if id, err := trust.Verify(m.chain(m.leaf(t, orders, change)), time.Now()); err == nil {
			t.Errorf("%s: verified as %v", name, id)
		}
	}
}

func TestVerifyRefusesIssuers(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	strange := newMesh(t)
	// under returns a chain below one more authority of this root, that is live.
	under := func(change func(*x509.Certificate)) func(t *testing.T) ([]*x509.Certificate, *identity.Trust) {
		return func(t *testing.T) ([]*x509.Certificate, *identity.Trust) {
			t.Helper()
			other := mesh{root: m.root, authority: m.root.authority(t, change)}
			trust, err := identity.ParseTrust(other.message(t))
			if err != nil {
				t.Skip("no such authority can be live:", err)
			}
			return other.chain(other.leaf(t, orders)), trust
		}
	}
	// with returns a chain and this mesh's trust.
	with := func(chain func(t *testing.T) []*x509.Certificate) func(t *testing.T) ([]*x509.Certificate, *identity.Trust) {
		return func(t *testing.T) ([]*x509.Certificate, *identity.Trust) { t.Helper(); return chain(t), m.trust(t) }
	}
	tests := map[string]func(t *testing.T) ([]*x509.Certificate, *identity.Trust){
		"no certificate": with(func(*testing.T) []*x509.Certificate { return nil }),
		"a long chain": with(func(t *testing.T) []*x509.Certificate {
			t.Helper()
			return append(m.chain(m.leaf(t, orders)), slices.Repeat([]*x509.Certificate{m.root.cert}, 6)...)
		}),
		"self-signed": with(func(t *testing.T) []*x509.Certificate {
			t.Helper()
			self := leafTemplate("spiffe://shop.example/service/orders")
			key := newKey(t)
			return []*x509.Certificate{signer{self, key}.sign(t, self, key.Public())}
		}),
		"another's authority": with(func(t *testing.T) []*x509.Certificate {
			t.Helper()
			return strange.chain(strange.leaf(t, orders))
		}),
		"a leaf without its authority": with(func(t *testing.T) []*x509.Certificate {
			t.Helper()
			return []*x509.Certificate{m.leaf(t, orders), m.root.cert}
		}),
		"the root itself": with(func(t *testing.T) []*x509.Certificate {
			t.Helper()
			leaf := m.root.sign(t, leafTemplate("spiffe://shop.example/service/orders"), newKey(t).Public())
			return []*x509.Certificate{leaf, m.root.cert}
		}),
		"a leaf that names another authority": with(func(t *testing.T) []*x509.Certificate {
			t.Helper()
			renamed := *m.authority.cert
			renamed.SubjectKeyId = []byte("another")
			return m.chain(mesh{authority: signer{&renamed, m.authority.key}}.leaf(t, orders))
		}),
		"an authority that is gone": with(func(t *testing.T) []*x509.Certificate {
			t.Helper()
			gone := mesh{root: m.root, authority: m.root.authority(t)}
			return gone.chain(gone.leaf(t, orders))
		}),
		"an authority that is gone, with a live one's name": with(func(t *testing.T) []*x509.Certificate {
			t.Helper()
			gone := m.root.authority(t)
			// Its leaf says that the live authority signed it.
			fake := signer{cert: &x509.Certificate{Subject: gone.cert.Subject, SubjectKeyId: m.authority.cert.SubjectKeyId}, key: gone.key}
			leaf := fake.sign(t, leafTemplate("spiffe://shop.example/service/orders"), newKey(t).Public())
			return []*x509.Certificate{leaf, gone.cert, m.authority.cert, m.root.cert}
		}),
		"an authority that signed one with a live one's name": with(func(t *testing.T) []*x509.Certificate {
			t.Helper()
			gone := m.root.authority(t)
			twin := gone.authority(t, func(c *x509.Certificate) { c.SubjectKeyId = m.authority.cert.SubjectKeyId })
			leaf := twin.sign(t, leafTemplate("spiffe://shop.example/service/orders"), newKey(t).Public())
			return []*x509.Certificate{leaf, twin.cert, gone.cert, m.root.cert}
		}),
		"one that is no CA":                under(func(c *x509.Certificate) { c.IsCA = false }),
		"one that may not sign":            under(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }),
		"one without key usage":            under(func(c *x509.Certificate) { c.KeyUsage = 0 }),
		"one of a workload":                under(func(c *x509.Certificate) { c.URIs[0].Path = "/service/orders" }),
		"one with a slash":                 under(func(c *x509.Certificate) { c.URIs[0].Path = "/" }),
		"one of another trust domain":      under(func(c *x509.Certificate) { c.URIs[0].Host = "other.example" }),
		"one with two names":               under(func(c *x509.Certificate) { c.URIs = append(c.URIs, &url.URL{Scheme: "spiffe", Host: "other.example"}) }),
		"one that expired":                 under(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = ago(2*time.Hour), ago(time.Second) }),
		"one that may only name others":    under(func(c *x509.Certificate) { c.PermittedURIDomains = []string{"other.example"} }),
		"one that may not name this mesh":  under(func(c *x509.Certificate) { c.ExcludedURIDomains = []string{"shop.example"} }),
		"one below one that ends the path": nil,
	}
	tests["one below one that ends the path"] = func(t *testing.T) ([]*x509.Certificate, *identity.Trust) {
		t.Helper()
		last := m.root.authority(t, func(c *x509.Certificate) { c.MaxPathLenZero = true })
		other := mesh{root: m.root, authority: last.authority(t)}
		return append(other.chain(other.leaf(t, orders)), last.cert), other.trust(t)
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			chain, trust := tt(t)
			if id, err := trust.Verify(chain, time.Now()); err == nil {
				t.Errorf("verified as %v", id)
			}
		})
	}
}

func TestVerifyRefusesRevoked(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	leaf := m.leaf(t, orders)
	for name, change := range map[string]func(*chancerypb.Trust){
		"by fingerprint": func(m *chancerypb.Trust) { m.Revoked = append(m.Revoked, revoked(leaf)) },
		"by serial":      func(tr *chancerypb.Trust) { tr.Authorities[0].Crl = m.authority.crl(t, leaf) },
	} {
		if _, err := m.trust(t, change).Verify(m.chain(leaf), time.Now()); !errors.Is(err, identity.ErrRevoked) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := m.trust(t, change).Verify(m.chain(m.leaf(t, orders)), time.Now()); err != nil {
			t.Errorf("%s: the next certificate: %v", name, err)
		}
	}
	// Without its authority nothing that it signed is good, root or not (S07).
	next := mesh{root: m.root, authority: m.root.authority(t)}
	if _, err := next.trust(t).Verify(m.chain(leaf), time.Now()); !errors.Is(err, identity.ErrAuthority) {
		t.Errorf("authority removed: %v", err)
	}
	tainted := m.trust(t, func(m *chancerypb.Trust) { m.Authorities[0].Tainted = true })
	if _, err := tainted.Verify(m.chain(leaf), time.Now()); err != nil || !tainted.IsTainted(m.authority.id()) {
		t.Errorf("a tainted authority's certificate is good until it is revoked: %v", err)
	}
}

func TestParseTrustRefuses(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	other := m.root.authority(t)
	for name, change := range map[string]func(*chancerypb.Trust){
		"no trust domain":     func(m *chancerypb.Trust) { m.TrustDomain = "" },
		"a strange one":       func(m *chancerypb.Trust) { m.TrustDomain = "Shop.example" },
		"another one":         func(m *chancerypb.Trust) { m.TrustDomain = "other.example" },
		"no root":             func(m *chancerypb.Trust) { m.Roots = nil },
		"garbage as root":     func(m *chancerypb.Trust) { m.Roots = append(m.Roots, []byte("x")) },
		"a leaf as root":      func(tr *chancerypb.Trust) { tr.Roots = append(tr.Roots, m.leaf(t, orders).Raw) },
		"no authority":        func(m *chancerypb.Trust) { m.Authorities = nil },
		"an authority twice":  func(m *chancerypb.Trust) { m.Authorities = append(m.Authorities, m.Authorities[0]) },
		"no revocation list":  func(m *chancerypb.Trust) { m.Authorities[0].Crl = nil },
		"another's list":      func(m *chancerypb.Trust) { m.Authorities[0].Crl = other.crl(t) },
		"another's ID":        func(m *chancerypb.Trust) { m.Authorities[0].Id = other.id() },
		"an upper-case ID":    func(m *chancerypb.Trust) { m.Authorities[0].Id = strings.ToUpper(m.Authorities[0].Id) },
		"a short fingerprint": func(m *chancerypb.Trust) { m.Revoked = []*chancerypb.RevokedCertificate{{Fingerprint: []byte("x")}} },
		"an empty message":    func(m *chancerypb.Trust) { m.Reset() },
	} {
		message := m.message(t)
		change(message)
		if _, err := identity.ParseTrust(message); err == nil {
			t.Errorf("%s: parsed", name)
		}
	}
	if _, err := identity.ParseTrust(nil); err == nil {
		t.Error("nothing: parsed")
	}
}

func TestParseTrustIsACopy(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	message := m.message(t)
	trust := parseTrust(t, message)
	message.Sequence, message.TrustDomain = 7, "other.example"
	if trust.Sequence() != 1 || trust.TrustDomain() != trustDomain {
		t.Error("a later change of the message reached it")
	}
}

func ago(d time.Duration) time.Time { return time.Now().Add(-d) }
