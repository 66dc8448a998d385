package ca_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"path/filepath"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/ca"
)

const trustDomain = "shop.example"

var (
	orders = identity.ID{Role: identity.RoleService, Name: "orders"}
	public = identity.ID{Role: identity.RoleGateway, Name: "public"}
)

func config(t *testing.T) ca.Config {
	t.Helper()
	return ca.Config{Dir: filepath.Join(t.TempDir(), "ca"), TrustDomain: trustDomain}
}

func open(t testing.TB, cfg ca.Config) *ca.CA {
	t.Helper()
	authority, err := ca.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = authority.Close() })
	return authority
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func request(t testing.TB, id identity.ID) ca.Request {
	t.Helper()
	return ca.Request{ID: id, Key: newKey(t).Public(), TTL: time.Hour}
}

func renewal(t testing.TB, of ca.Certificate) ca.Request {
	t.Helper()
	req := request(t, of.ID)
	req.Lineage, req.Parent = of.Lineage, of.Serial
	return req
}

func sign(t testing.TB, authority *ca.CA, req ca.Request) ([]*x509.Certificate, ca.Certificate) {
	t.Helper()
	ders, cert, err := authority.Sign(req)
	if err != nil {
		t.Fatal(err)
	}
	var chain []*x509.Certificate
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, c)
	}
	return chain, cert
}

func TestLifeOfACA(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	authority := open(t, cfg)
	first := authority.Authorities()[0]
	chain, cert := sign(t, authority, request(t, orders))
	if len(chain) != 3 || chain[0].URIs[0].String() != "spiffe://shop.example/service/orders" {
		t.Fatalf("chain is %v", chain)
	}
	_, renewed := sign(t, authority, renewal(t, cert))
	if live := authority.Live(); len(live) != 1 || live[0].Serial != renewed.Serial {
		t.Errorf("live are %v, want %s", live, renewed.Serial)
	}
	second, err := authority.Prepare(false)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{authority.Activate(second.ID), authority.Taint(first.ID), authority.Revoke(first.ID)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if live := authority.Live(); len(live) != 0 {
		t.Errorf("live are %v, want none: their authority is revoked", live)
	}
	_, other := sign(t, authority, request(t, public))
	changed := authority.Changed()
	revoked, err := authority.RevokeSerial(other.Serial, "stolen")
	if err != nil || len(revoked) != 1 {
		t.Fatalf("RevokeSerial = %v, %v", revoked, err)
	}
	<-changed
	want := authority.Trust()
	if err := authority.Close(); err != nil {
		t.Fatal(err)
	}

	again := open(t, cfg)
	if got := again.Trust(); got.GetSequence() != want.GetSequence() || len(got.GetRevoked()) != 1 {
		t.Errorf("trust after a restart is %v, want %v", got, want)
	}
	if c, ok := again.Find(other.Serial); !ok || c.Revoked.IsZero() || c.ID != public || c.Reason != "stolen" {
		t.Errorf("Find = %v, %v", c, ok)
	}
}
